"""The documents as tests: their blocks, the files that these name, and a shell to run them in."""

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.support.builder import MIB, Block, ImageSpec, child_of, make_dirty, same_bytes_guid
from tests.support.cli import SCRIPT
from tests.support.contents import EFI, LINUX, gpt, record
from tests.support.naive_reader import NaiveDisk
from tests.support.partitions import disk_with
from tests.support.paths import ROOT, SAMPLE
from tests.support.peers import needs_program, skip_unless_ci

DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
FENCE = re.compile(
    r"^(?:<!-- (?P<mark>[^\n]*) -->\n+)?```(?P<language>\w*)\n(?P<text>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)
PROMPT = "$ "
OPTIONAL_PROGRAMS = (
    *("zstd", "debugfs", "e2fsck", "7zz", "ewfacquirestream", "ntfscat"),
    *("bmaptool", "jq", "nbdcopy", "nbdinfo", "nbdkit", "qemu-img"),
)
SERVES = "vhdx2raw serve"
SEARCH_PATH = f"{os.environ['PATH']}:/usr/sbin:/sbin"
END_MARK = "=== end of the output, exit code"
TIMEOUT = 120
PROGRAM = Path(SCRIPT[0])


# -- blocks -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Code:
    """A fenced block of a document, with the HTML comment before it, if there is one."""

    document: Path
    line: int
    language: str
    mark: str
    text: str

    @property
    def name(self) -> str:
        """Where it stands."""
        return f"{self.document.relative_to(ROOT)}:{self.line}"

    @property
    def reason_not_to_run(self) -> str:
        """Why it is not run here; empty if it is."""
        kind, _, reason = self.mark.partition(": ")
        return reason if kind == "not run" else ""

    @property
    def optional_programs(self) -> list[str]:
        """What it uses that not every machine has."""
        return optional_programs_of(self.text)


def optional_programs_of(text: str) -> list[str]:
    """Give what commands use that not every machine has."""
    text += " nbdkit" if SERVES in text else ""
    return [name for name in OPTIONAL_PROGRAMS if re.search(rf"\b{name}\b", text)]


def read_blocks(*languages: str) -> list[Code]:
    """Give the fenced blocks of all documents in these languages, in order."""
    blocks = []
    for document in DOCUMENTS:
        text = document.read_text(encoding="utf-8")
        for match in FENCE.finditer(text):
            line = text.count("\n", 0, match.start("text"))
            blocks.append(
                Code(document, line, match["language"], match["mark"] or "", match["text"])
            )
    return [block for block in blocks if not languages or block.language in languages]


@dataclass(frozen=True)
class Command:
    """A command of a console block, and the output that is shown."""

    words: str
    output: str


def commands_of(text: str) -> list[Command]:
    """Cut a console block into its commands; a backslash or an open quote continues one."""
    commands: list[tuple[str, list[str]]] = []
    for line in text.splitlines():
        words = commands[-1][0] if commands and not commands[-1][1] else ""
        if words.endswith("\\") or words.count("'") % 2:
            commands[-1] = (f"{commands[-1][0]}\n{line}", [])
        elif line.startswith(PROMPT):
            commands.append((line.removeprefix(PROMPT), []))
        else:
            commands[-1][1].append(line)
    return [Command(words, "\n".join(lines)) for words, lines in commands]


# -- files --------------------------------------------------------------------------------------

BASE = ImageSpec(8 * MIB, MIB, {0: Block(), 3: Block()}, data_write_guid=same_bytes_guid(0x55))
CHILD = child_of(BASE, "base.vhdx", blocks={1: Block(), 3: Block()})
SNAP1 = child_of(BASE, "base.vhdx", blocks={1: Block()}, data_write_guid=same_bytes_guid(0x66))
SNAP2 = child_of(SNAP1, "snap1.avhdx", blocks={2: Block()}, data_write_guid=same_bytes_guid(0x77))
DISK = ImageSpec(8 * MIB, MIB, {0: Block(), 2: Block()})
DIRTY = make_dirty(ImageSpec(8 * MIB, MIB, {0: Block()}), DISK)


def _copy_sample(path: Path) -> None:
    subprocess.run(["cp", "--sparse=always", SAMPLE, path], check=True)


def _write_truncated(path: Path) -> None:
    ImageSpec(8 * MIB, MIB, {0: Block(), 2: Block(), 5: Block()}).write(path)
    os.truncate(path, path.stat().st_size - MIB)


def _write_damaged_header(path: Path) -> None:
    DISK.write(path)
    with path.open("r+b") as file:
        for place in (0x10000, 0x20000):
            file.seek(place + 100)
            file.write(b"damage")


def _write_zip(path: Path) -> None:
    path.write_bytes(b"PK\x03\x04" + bytes(1020))


def _write_server(path: Path) -> None:
    """Put the disk in the sample into the second partition of another one."""
    rows = [(EFI, 2048, 4095, "boot"), (LINUX, 4096, 36863, "root")]
    root = {2 * MIB: NaiveDisk([SAMPLE]).read(0, 16 * MIB)}
    disk_with(root | gpt(*rows, size=20 * MIB), 20 * MIB).write(path)


def _write_windows(path: Path) -> None:
    """Make a disk with a volume of NTFS, and a file in it."""
    volume, notes = path.with_suffix(".ntfs"), path.with_suffix(".txt")
    notes.write_text("Where I keep it.\n")
    volume.write_bytes(bytes(8 * MIB))
    for command in (
        ["mkntfs", "-q", "-F", "-s", "512", "-H", "16", "-S", "63", "-p", "2048"],
        ["ntfscp", "-q", "-f"],
    ):
        last = [volume, notes, "notes.txt"] if command[0] == "ntfscp" else [volume]
        subprocess.run(
            [*command, *last], check=True, env={"PATH": SEARCH_PATH}, capture_output=True
        )
    pieces = {0: record((0x07, 2048, 16384)), MIB: volume.read_bytes()}
    disk_with(pieces, 10 * MIB).write(path)
    volume.unlink()
    notes.unlink()


def _write_raw(path: Path) -> None:
    path.write_bytes(DISK.expected_disk(0, DISK.virtual_disk_size))


MAKERS: dict[str, Callable[[Path], object]] = {
    "testdata/sample.vhdx": _copy_sample,
    "disk.vhdx": _copy_sample,
    "ext4.vhdx": _copy_sample,
    "copy.vhdx": _copy_sample,
    "base.vhdx": BASE.write,
    "other.vhdx": DISK.write,
    "snapshot.avhdx": CHILD.write,
    "child.avhdx": CHILD.write,
    "alone.avhdx": CHILD.write,
    "vm_8A3F.avhdx": CHILD.write,
    "snap1.avhdx": SNAP1.write,
    "snap2.avhdx": SNAP2.write,
    "dirty.vhdx": DIRTY.write,
    "damaged.vhdx": _write_truncated,
    "broken.vhdx": _write_damaged_header,
    "archive.zip": _write_zip,
    "server.vhdx": _write_server,
    "windows.vhdx": _write_windows,
    "other.img": _write_raw,
}
"""What each file is that documents name."""
NOT_BEFORE = r"(?<![\w./-])"


def prepare(folder: Path, text: str) -> None:
    """Make each file that `text` names and, for a checkpoint, its parents beside it.

    Beside one that is called `alone` there is none.
    """
    if "snap2.avhdx" in text:
        text += " snap1.avhdx"
    for name, make in MAKERS.items():
        if re.search(NOT_BEFORE + re.escape(name), text):
            (folder / name).parent.mkdir(exist_ok=True)
            make(folder / name)
    if "--parent-dir backup" in text:
        (folder / "backup").mkdir()
        BASE.write(folder / "backup" / "base.vhdx")
    elif ".avhdx" in text and "alone.avhdx" not in text:
        BASE.write(folder / "base.vhdx")


# -- the shell ----------------------------------------------------------------------------------

CLOUD_PROGRAMS = (
    *("aws", "az", "azcopy", "coldsnap", "gcloud", "openstack"),
    *("qm", "virtctl", "virt-install"),
)
STUB = """#!/bin/sh
# Stands in for the program of a cloud or a host: every file that it is to send must be there.
for word; do
    word=${word#--image-path=} word=${word#path=} word=${word%%,*}
    case $word in
        -) cat >/dev/null ;;
        *://*) ;;
        *.tar.gz | *.raw.gz | *.raw | *.img | *.vhd | *.json) [ -s "$word" ] || exit 1 ;;
    esac
done
"""


@dataclass(frozen=True)
class Done:
    """What a command of a block has done."""

    output: str
    exit_code: int


def environment(folder: Path) -> dict[str, str]:
    """Give the environment of a user who lives in `folder`, where no cloud can be reached."""
    programs = folder / ".programs"
    programs.mkdir(exist_ok=True)
    for name in CLOUD_PROGRAMS:
        (programs / name).write_text(STUB)
        (programs / name).chmod(0o755)
    own = Path(sys.executable).parent
    path = f"{own}:{programs}:{SEARCH_PATH}"
    variables = {"PATH": path, "HOME": str(folder), "LC_ALL": "C.UTF-8", "TZ": "UTC"}
    return {**os.environ, **variables}


def run_shell(folder: Path, words: list[str]) -> list[Done]:
    """Run commands one after the other in one shell, as they were typed."""
    lines = ["set -o pipefail", "last=0"]
    for command in words:
        lines += [
            f"(exit $last); eval {shlex.quote(command)}",
            f"last=$?; printf '\\n{END_MARK} %s\\n' $last",
        ]
    done = subprocess.run(
        ["bash", "-c", "\n".join(lines)],
        cwd=folder,
        env=environment(folder),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=TIMEOUT,
        check=False,
        text=True,
    )
    parts = re.split(rf"\n{END_MARK} (\d+)\n", done.stdout)
    assert len(parts) == 2 * len(words) + 1, done.stdout
    return [Done(*pair) for pair in _pairs(parts)]


def run_recipe(folder: Path, recipe: str, *needed: str) -> subprocess.CompletedProcess[str]:
    """Run a script as it stands, with this program on the path; skip it if a tool is missing."""
    for tool in needed:
        needs_program(tool)
    if not PROGRAM.exists():
        skip_unless_ci("vhdx2raw is not installed beside this Python")
    path = f"{PROGRAM.parent}{os.pathsep}{os.environ['PATH']}"
    return subprocess.run(
        ["sh", "-c", recipe],
        cwd=folder,
        env=os.environ | {"PATH": path, "HOME": str(folder), "PARALLEL_HOME": str(folder)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=TIMEOUT,
        check=False,
        text=True,
    )


def _pairs(parts: list[str]) -> Iterator[tuple[str, int]]:
    for output, code in zip(parts[0::2], parts[1::2], strict=False):
        yield output.rstrip("\n"), int(code)


# -- what is shown ------------------------------------------------------------------------------

VOLATILE = (
    # The time, and what a file system allocates or shares, are those of the host.
    (r"in \d+\.\d s\b", "in 0.0 s"),
    (r"[\d.]+ \w+ written(, [\d.]+ \w+ shared)? to", "N written to"),
    (r"^ *\d+ (-[rwx-]+) \d+ \S+ +\S+ +(\d+) .*? (\S+)$", r"N \1 \2 \3"),
    (r'"(actual-size|cloned-size|written-size|duration-seconds)": [\d.]+', r'"\1": N'),
    (r"^actual size: .*$", "actual size: N"),
    (r" +[\d.]+ [KM]iB  \d{4}-\d\d-\d\d \d\d:\d\d ", " N "),
)


def is_shown(shown: str, output: str) -> bool:
    """Return whether `output` is what is shown, where `...` stands for anything."""
    for pattern, words in VOLATILE:
        shown = re.sub(pattern, words, shown, flags=re.MULTILINE)
        output = re.sub(pattern, words, output, flags=re.MULTILINE)
    pattern = ".*".join(map(re.escape, shown.split("...")))
    return re.fullmatch(pattern, output, re.DOTALL) is not None
