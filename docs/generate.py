"""Write `cli.md`, the manual page `vhdx2raw.1` and `format-rules.md` from the program itself.

    python docs/generate.py [FOLDER]        by default the folder of this file

`make docs` runs it; a test fails if the files in this folder are not what it writes.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from itertools import groupby
from pathlib import Path
from textwrap import wrap
from typing import Any

import typer

from vhdx2raw.cli.app import COMMANDS, DEFAULT_COMMAND, app
from vhdx2raw.cli.console import OPTION_NAMES
from vhdx2raw.cli.usage import options_by_panel
from vhdx2raw.findings import Severity
from vhdx2raw.operations.check.report import OF_SEVERITY
from vhdx2raw.rules import Rule

ROOT = Path(__file__).resolve().parent.parent
RELEASE = re.compile(r"^## \[[^]]+] - ([0-9-]+)$", re.MULTILINE)
EXIT_CODES = {
    "0": "Done; the answer is yes.",
    "1": "The answer is no: `compare` found a difference.",
    "2": "Wrong usage.",
    "3": "Done with `--salvage`, but parts could not be read.",
    "4": "Not a VHDX, or it needs something that is not supported.",
    "5": "The image is corrupt or truncated; `check` found errors.",
    "6": "A parent is missing, is the wrong one, or is where it may not be.",
    "7": "The output cannot be made as asked: it exists, is the input, is a folder, or is not what"
    " its state file says.",
    "8": "The host could not read, write or mount, or has no space; another try may succeed.",
    "9": "The source was changed while it was read; another try may succeed.",
    "70": "A fault of the program itself.",
    "129, 130, 143": "Ended by SIGHUP, SIGINT or SIGTERM.",
}
ENVIRONMENT = {
    "NO_COLOR": "If set and not empty, `map --picture` draws without colours. Nothing else has"
    " any.",
    "VHDX2RAW_DEBUG": "If set and not empty, a fault of the program itself is printed with its"
    " traceback. Please add that to a report.",
}
STREAMS = (
    "Results go to standard output, everything else to standard error. On success nothing but"
    " warnings is written to standard error when it is no terminal and neither `-v` nor"
    " `--progress` asks for it; `-q` silences warnings as well. With `--json` a failure is an"
    " object on standard output, too."
    " Standard input is never read, and no source is ever written to."
)
SIZES = (
    "SIZE is a number of bytes, or one with k, M, G, T, P or E, in powers of 1024;"
    " `10M` and `10MiB` are the same."
)


@dataclass(frozen=True, slots=True)
class Item:
    """An argument or an option: how it is typed, what it means, and its group in the help."""

    words: str
    help: str
    group: str = ""


@dataclass(frozen=True, slots=True)
class Command:
    """A command, or the program as a whole, as its help has it."""

    name: str
    usage: str
    paragraphs: list[str]
    arguments: list[Item]
    options: list[Item]
    examples: list[Item]

    @property
    def summary(self) -> str:
        """The first sentence."""
        return self.paragraphs[0]


def read_commands() -> tuple[Command, list[Command]]:
    """Return the program and its commands, in the order of the help."""
    group: Any = typer.main.get_command(app)
    context = typer.Context(group, info_name="vhdx2raw")
    commands = []
    for name in COMMANDS:
        single: Any = group.get_command(context, name)
        own = typer.Context(single, info_name=name, parent=context)
        commands.append(_read(single, own, f"vhdx2raw {name}"))
    return _read(group, context, "vhdx2raw"), commands


def _read(command: Any, context: Any, usage: str) -> Command:  # noqa: ANN401 - Typer's own
    # Typer says what is required; here the usage does.
    arguments = [
        Item(words, _tidy(text.replace("[required]", "")))
        for parameter in command.get_params(context)
        if parameter.param_type_name == "argument"
        for words, text in [parameter.get_help_record(context)]
    ]
    options = [
        Item(_tidy(words), _tidy(text), panel)
        for panel, records in options_by_panel(command, context).items()
        for words, text in records
    ]
    paragraphs = [_tidy(paragraph) for paragraph in command.help.split("\n\n")]
    words = " ".join([usage, "[OPTIONS]", *(item.words for item in arguments)])
    name = usage.rpartition(" ")[2]
    return Command(name, words, paragraphs, arguments, options, _read_examples(command.epilog))


def _read_examples(epilog: str) -> list[Item]:
    lines = epilog.partition("Examples:\n")[2].splitlines()
    pairs = (re.split(r"\s{2,}", line.strip(), maxsplit=1) for line in lines if line.strip())
    return [Item(words[0], words[1] if len(words) > 1 else "") for words in pairs]


def _tidy(text: str) -> str:
    return " ".join(text.split())


# -- Markdown -----------------------------------------------------------------------------------


def iter_markdown(program: Command, commands: list[Command]) -> Iterator[str]:
    """Yield the lines of the reference."""
    yield "<!-- Made by `make docs` from the commands themselves; edits are lost. -->"
    yield "# The commands"
    yield ""
    for paragraph in [*program.paragraphs, STREAMS, SIZES]:
        yield from [paragraph, ""]
    yield "| command | what it does |"
    yield "|---|---|"
    for command in commands:
        yield f"| [`{command.name}`](#vhdx2raw-{command.name}) | {_cell(command.summary)} |"
    yield ""
    yield from _iter_table("option of the program", program.options)
    for command in commands:
        yield from _iter_section(command)
    yield "## Exit codes"
    yield ""
    yield from _iter_table("code", [Item(*pair) for pair in EXIT_CODES.items()], mark="")
    yield "## Environment"
    yield ""
    yield from _iter_table("variable", [Item(*pair) for pair in ENVIRONMENT.items()])


def _iter_section(command: Command) -> Iterator[str]:
    yield f"## vhdx2raw {command.name}"
    yield ""
    yield from ["```text", command.usage, "```", ""]
    for paragraph in command.paragraphs:
        yield from [paragraph, ""]
    yield from _iter_table("argument", command.arguments)
    for group, options in groupby(command.options, lambda option: option.group):
        yield from _iter_table(group.lower(), list(options))
    yield "```sh"
    width = max(len(item.words) for item in command.examples if item.help)
    for item in command.examples:
        yield f"{item.words:<{width}}  # {item.help}" if item.help else item.words
    yield from ["```", ""]


def _iter_table(name: str, items: list[Item], mark: str = "`") -> Iterator[str]:
    yield f"| {name} | meaning |"
    yield "|---|---|"
    for item in items:
        yield f"| {mark}{_cell(item.words)}{mark} | {_cell(item.help)} |"
    yield ""


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


# -- the manual page ----------------------------------------------------------------------------


def iter_roff(program: Command, commands: list[Command]) -> Iterator[str]:
    """Yield the lines of the manual page, in the macros of man(7)."""
    date = RELEASE.findall((ROOT / "CHANGELOG.md").read_text(encoding="utf-8"))[0]
    yield r".\" Made by `make docs` from the commands themselves; edits are lost."
    yield f'.TH VHDX2RAW 1 {date} "vhdx2raw {metadata.version("vhdx2raw")}"'
    yield ".SH NAME"
    yield rf"vhdx2raw \- {_roff(program.summary[0].lower() + program.summary[1:].rstrip('.'))}"
    yield ".SH SYNOPSIS"
    for index, command in enumerate(commands):
        name = f"[{command.name}]" if command.name == DEFAULT_COMMAND else command.name
        yield from [".br"] * bool(index)
        rest = command.usage.removeprefix(f"vhdx2raw {command.name}").strip()
        yield rf"\fBvhdx2raw {name}\fR {_roff(rest)}"
    yield ".SH DESCRIPTION"
    yield from _iter_paragraphs([*program.paragraphs, STREAMS, SIZES])
    yield from _iter_items(program.options)
    yield ".SH COMMANDS"
    for command in commands:
        yield f".SS {command.name}"
        yield from _iter_paragraphs(command.paragraphs)
        yield from _iter_items(command.arguments)
        for group, options in groupby(command.options, lambda option: option.group):
            yield from [".PP", f"{group}:"]
            yield from _iter_items(list(options))
    yield ".SH EXIT STATUS"
    yield from _iter_items([Item(*pair) for pair in EXIT_CODES.items()])
    yield ".SH ENVIRONMENT"
    yield from _iter_items([Item(*pair) for pair in ENVIRONMENT.items()])
    yield ".SH EXAMPLES"
    yield from _iter_roff_examples(commands)
    yield ".SH SEE ALSO"
    yield from [".BR qemu\\-img (1),", ".BR losetup (8),", ".BR mount (8)"]


def _iter_roff_examples(commands: list[Command]) -> Iterator[str]:
    for index, item in enumerate(item for command in commands for item in command.examples):
        if index:
            yield ".PP"
        if item.help:
            yield from _iter_wrapped(f"{item.help[0].upper()}{item.help[1:].rstrip('?')}:")
        yield from [".EX", f"    {_roff(item.words)}", ".EE"]


def _iter_paragraphs(paragraphs: list[str]) -> Iterator[str]:
    for index, paragraph in enumerate(paragraphs):
        if index:
            yield ".PP"
        yield from _iter_wrapped(paragraph)


def _iter_items(items: list[Item]) -> Iterator[str]:
    for item in items:
        yield ".TP"
        yield rf"\fB{_roff(item.words)}\fR"
        yield from _iter_wrapped(item.help)


def _iter_wrapped(text: str) -> Iterator[str]:
    """Yield a paragraph as lines, each sentence on lines of its own, as roff wants it."""
    for sentence in re.split(r"(?<=[.;]) ", text):
        for line in wrap(sentence, 70, break_long_words=False, break_on_hyphens=False):
            yield _roff(line)


def _roff(text: str) -> str:
    """Escape what roff would obey, and make `words` bold."""
    text = text.replace("\\", r"\e").replace("-", r"\-").replace("'", r"\(aq")
    text = re.sub(r"`([^`]*)`", r"\\fB\1\\fR", text).replace("`", r"\(ga")
    return rf"\&{text}" if text.startswith(".") else text


# -- the rules of the format --------------------------------------------------------------------

RULES_PROSE = """\
Every error and warning about a VHDX file names a rule. This is what each one asks of the file, and
what happens if the file breaks it. Section numbers are those of MS-VHDX, revision 8.0.

The principle behind all of them: *a file that cannot be read with certainty is refused; one that is
unusual in a way that cannot change a byte of the disk is read, with a warning where the user should
know.*

**refuse** ends with an error before anything is written. **warn** goes on, and the bytes are
right. **accept** goes on without a message.
"""
LOG_PROSE = """\
An entry that breaks R19 to R24 is not there; that is no error of the file.
"""
HEADINGS = {
    Rule.SIGNATURE: ("Opening and headers (2.2.1, 2.2.2)", ""),
    Rule.LOG_RING: ("Log (2.3)", LOG_PROSE),
    Rule.REGION_TABLE_VALID: ("Region table (2.2.3)", ""),
    Rule.METADATA_TABLE: ("Metadata (2.6)", ""),
    Rule.CHUNKS: ("BAT (2.5)", ""),
    Rule.READ_NOT_PRESENT: ("What a read returns (2.5.1.1)", ""),
    Rule.PARENT_LOCATOR: ("Differencing disks (2.6.2.6)", ""),
    Rule.BLOCK_END: ("Ends and sizes", ""),
}
"""Title and introduction of each group of rules, by the first rule of the group."""
SALVAGE_PROSE = """\
A damaged file is read nevertheless, as far as something can stand in for what is broken. Every
broken rule is reported, every lost range is listed, and the exit code is 3. Lost ranges are zeros.
What is unsupported is damage too: to go on may give nothing of use. What the host cannot read is
lost by units of 512 bytes.

The consequences of errors, as `check` prints them:
"""


def iter_rules() -> Iterator[str]:
    """Yield the lines of the list of rules."""
    yield "<!-- Made by `make docs` from vhdx2raw/rules.py; edits are lost. -->"
    yield "# The rules that we read by"
    yield ""
    yield RULES_PROSE
    for rule in Rule:
        if rule in HEADINGS:
            title, prose = HEADINGS[rule]
            yield from [""] if rule is not Rule.SIGNATURE else []
            yield f"## {title}"
            yield ""
            yield from [prose] if prose else []
            yield from ["| rule | what must hold | if not |", "|---|---|---|"]
        cells = (rule, _rule_text(rule.requirement), _rule_text(rule.response))
        yield f"| {' | '.join(cells)} |".replace("  ", " ")
    yield from ["", "## With `--salvage`", "", SALVAGE_PROSE]
    yield from ["| rules | consequence |", "|---|---|"]
    consequences: dict[str, list[str]] = {}
    for rule in Rule:
        if rule.error:
            consequences.setdefault(rule.error, []).append(rule)
    for consequence, rules in consequences.items():
        yield f"| {', '.join(rules)} | {_rule_text(consequence)} |"
    yield f"| any other | {_rule_text(OF_SEVERITY[Severity.ERROR])} |"


def _rule_text(text: str) -> str:
    """Put the options of the command line in the place of the names in braces."""
    return _cell(re.sub(r"\{(\w+)}", lambda name: f"`{OPTION_NAMES[name[1]]}`", text))


def main(folder: Path) -> None:
    """Write all files into `folder`."""
    program, commands = read_commands()
    files = {
        "cli.md": iter_markdown(program, commands),
        "vhdx2raw.1": iter_roff(program, commands),
        "format-rules.md": iter_rules(),
    }
    for name, lines in files.items():
        text = "\n".join(lines).rstrip("\n") + "\n"
        (folder / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent)
