"""What SECURITY.md promises about hostile images and other users, beyond the tests that it names.

Where a parent may lie is tested in unit/disk/test_parent_paths.py, mutated images in fuzz/.
"""

import ast
import itertools
import json
import os
import re
import stat
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unicodedata import category
from uuid import UUID

import pytest

import vhdx2raw
from tests.support.builder import (
    BAT_REGION,
    METADATA_REGION,
    MIB,
    TIB,
    Block,
    HeaderSpec,
    ImageSpec,
)
from tests.support.chains import child_with, read_chain
from tests.support.chains import small_disk as small_parent
from tests.support.cli import run, run_on_terminal, run_program, small_disk
from tests.support.files import has_expected_bytes, names_in, write_files
from tests.support.memory import run_and_measure
from tests.support.parents import OUTSIDE, parents_of, refusal_of
from tests.support.paths import ROOT
from tests.support.peers import needs_program, needs_superuser, skip_unless_ci
from vhdx2raw.disk import parent_search
from vhdx2raw.errors import ParentNotFoundError
from vhdx2raw.output.sparse_file import SparseFileSink
from vhdx2raw.vhdx.image import open_image

PACKAGE = Path(vhdx2raw.__file__).parent
COMMANDS = ("convert", "info", "map", "check", "compare", "hash")
Capture = pytest.CaptureFixture[str]
Patch = pytest.MonkeyPatch


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: Patch) -> Path:
    """Give the current folder, which holds disk.vhdx and, elsewhere, somebody's file."""
    folder = tmp_path / "work"
    folder.mkdir()
    monkeypatch.chdir(folder)
    small_disk().write(folder / "disk.vhdx")
    (tmp_path / "victim").write_bytes(b"precious")
    return folder


def victim_of(folder: Path) -> Path:
    return folder.parent / "victim"


# -- parents are confined -----------------------------------------------------------------------


@pytest.mark.parametrize(
    "path",
    [
        "..\\" * 30 + "etc\\passwd",
        "..\\" * 30 + "dev\\zero",
        "..\\" * 30 + "proc\\self\\mem",
        "..\\" * 30 + "proc\\self\\root\\etc\\passwd",
        "..\\" * 30 + "proc\\self\\fd\\0",
        ".\\..\\.\\..\\..\\..\\..\\..\\..\\..\\..\\..\\dev\\stdin",
    ],
)
def test_relative_path_to_system_file_is_refused(
    tmp_path: Path, monkeypatch: Patch, path: str
) -> None:
    """They are not even opened: to open some of them has effects."""
    child = write_files(tmp_path, {"c.vhdx": child_with({"relative_path": path})})
    opened: list[str] = []
    real_open = os.open

    def recording_open(path: str, *rest: int, **more: int) -> int:
        opened.append(os.path.realpath(path))
        return real_open(path, *rest, **more)

    monkeypatch.setattr(os, "open", recording_open)
    assert OUTSIDE in refusal_of(child)
    assert set(opened) == {str(child.resolve())}


def test_link_through_proc_counts_as_its_target(tmp_path: Path) -> None:
    """Such a link opens its file whatever name that has by now."""
    child = write_files(tmp_path / "in", {"c.vhdx": child_with({"relative_path": "base.vhdx"})})
    outside = write_files(tmp_path / "out", {"base.vhdx": small_parent()})
    with outside.open("rb") as file:
        (tmp_path / "in/base.vhdx").symlink_to(f"/proc/self/fd/{file.fileno()}")
        assert OUTSIDE in refusal_of(child)
        assert parents_of(child, tmp_path / "out") == [str(tmp_path / "in/base.vhdx")]
        outside.unlink()
        assert "base.vhdx: " in refusal_of(child)


def test_fifo_swapped_in_after_check_blocks_nothing(tmp_path: Path, monkeypatch: Patch) -> None:
    names = {"c.vhdx": child_with({"relative_path": "base.vhdx"}), "base.vhdx": small_parent()}
    child = write_files(tmp_path, names)

    def swap_and_open(path: str, *rest: Any, **options: Any) -> Any:  # noqa: ANN401
        if path.endswith("base.vhdx"):
            Path(path).unlink()
            os.mkfifo(path)
        return open_image(path, *rest, **options)

    monkeypatch.setattr(parent_search, "open_image", swap_and_open)
    assert "base.vhdx: file: is a FIFO, not a VHDX file" in refusal_of(child)


def read_or_nothing(child: Path) -> bytes:
    """Read the first bytes of a disk; give none if its parent lies outside."""
    try:
        return read_chain(child)[:4]
    except ParentNotFoundError as error:
        return b"" if OUTSIDE in error.message else error.message.encode()


SWAPPER = """
import itertools, os, sys
os.chdir(sys.argv[1])
for target in itertools.cycle(("real.vhdx", "../out/real.vhdx")):
    os.symlink(target, "next")
    os.replace("next", "base.vhdx")
"""


def test_link_swapped_all_the_time_never_leads_outside(tmp_path: Path) -> None:
    """However the race goes: the parent inside is read, or none."""
    child = write_files(
        tmp_path / "in",
        {
            "c.vhdx": child_with({"relative_path": "base.vhdx"}),
            "real.vhdx": small_parent(),
            "../out/real.vhdx": small_parent(blocks={0: Block(content={0: b"leak"})}),
        },
    )
    (tmp_path / "in/base.vhdx").symlink_to("real.vhdx")
    with subprocess.Popen([sys.executable, "-c", SWAPPER, tmp_path / "in"]) as swapper:
        try:
            outcomes = {read_or_nothing(child) for _ in range(300)}
            assert swapper.poll() is None
        finally:
            swapper.kill()
    assert outcomes == {b"root", b""}


# -- the temporary file -------------------------------------------------------------------------


def plant_fifo(place: Path, _victim: Path) -> None:
    os.mkfifo(place)


PLANTS: dict[str, Callable[[Path, Path], None]] = {
    "symbolic link": lambda place, victim: place.symlink_to(victim),
    "link to nothing": lambda place, victim: place.symlink_to(victim.with_name("new")),
    "hard link": lambda place, victim: place.hardlink_to(victim),
    "FIFO": plant_fifo,
}


@pytest.mark.parametrize("force", [[], ["--force"]], ids=["", "--force"])
@pytest.mark.parametrize("plant", PLANTS)
def test_planted_temporary_is_not_followed_or_removed(
    folder: Path, capfd: Capture, monkeypatch: Patch, plant: str, force: list[str]
) -> None:
    """Even if its name had been guessed."""
    monkeypatch.setattr(os, "urandom", bytes)
    place = folder / ".out.img.0000000000000000.part"
    PLANTS[plant](place, victim_of(folder))
    before = place.lstat()
    outcome = run(capfd, *force, "disk.vhdx", "out.img")
    assert outcome.exit_code == 7
    assert names_in(folder) == [place.name, "disk.vhdx"]
    after = place.lstat()
    assert (after.st_ino, after.st_mode) == (before.st_ino, before.st_mode)
    assert names_in(folder.parent) == ["victim", "work"]
    assert victim_of(folder).read_bytes() == b"precious"


def test_temporary_name_cannot_be_guessed(folder: Path) -> None:
    names = set()
    for _ in range(50):
        sink = SparseFileSink(folder / "out.img", 512)
        [name] = (name for name in names_in(folder) if name.endswith(".part"))
        names.add(name)
        sink.abort()
    tokens = {name.removeprefix(".out.img.").removesuffix(".part") for name in names}
    assert len(tokens) == 50
    assert all(len(bytes.fromhex(token)) == 8 for token in tokens)


def while_it_is_written(monkeypatch: Patch, act: Callable[[Path], object]) -> None:
    """Do something with the temporary file just before it gets its name."""
    real_flush = SparseFileSink.flush

    def flush(sink: SparseFileSink) -> None:
        real_flush(sink)
        assert sink.readable_path
        act(Path(sink.readable_path))

    monkeypatch.setattr(SparseFileSink, "flush", flush)


@pytest.mark.parametrize("plant", PLANTS)
def test_planted_final_name_is_not_followed(
    folder: Path, capfd: Capture, monkeypatch: Patch, plant: str
) -> None:
    while_it_is_written(monkeypatch, lambda _: PLANTS[plant](folder / "out.img", victim_of(folder)))
    outcome = run(capfd, "disk.vhdx", "out.img")
    assert (outcome.exit_code, outcome.err_lines[0]) == (7, "vhdx2raw: out.img: exists already")
    assert names_in(folder) == ["disk.vhdx", "out.img"]
    assert victim_of(folder).read_bytes() == b"precious"


@pytest.mark.parametrize("plant", PLANTS)
def test_force_replaces_planted_name_not_its_target(
    folder: Path, capfd: Capture, monkeypatch: Patch, plant: str
) -> None:
    while_it_is_written(monkeypatch, lambda _: PLANTS[plant](folder / "out.img", victim_of(folder)))
    assert run(capfd, "--force", "disk.vhdx", "out.img").exit_code == 0
    assert not (folder / "out.img").is_symlink()
    assert has_expected_bytes(folder / "out.img", small_disk())
    assert names_in(folder.parent) == ["victim", "work"]
    assert victim_of(folder).read_bytes() == b"precious"


@pytest.mark.parametrize("mask", [0o000, 0o022, 0o027, 0o077])
def test_output_has_usual_permissions_from_the_start(
    folder: Path, capfd: Capture, monkeypatch: Patch, mask: int
) -> None:
    modes: list[int] = []
    while_it_is_written(monkeypatch, lambda path: modes.append(stat.S_IMODE(path.stat().st_mode)))
    before = os.umask(mask)
    try:
        assert run(capfd, "disk.vhdx", "out.img").exit_code == 0
        Path("usual").touch()
    finally:
        os.umask(before)
    modes.append(stat.S_IMODE(Path("out.img").stat().st_mode))
    assert modes == [0o666 & ~mask] * 2
    assert modes[0] == stat.S_IMODE(Path("usual").stat().st_mode)


@pytest.mark.parametrize("mask", [0o000, 0o022, 0o077])
@pytest.mark.parametrize("mode", [0o600, 0o640, 0o664, 0o444, 0o755])
def test_force_keeps_permissions_of_replaced_file(
    folder: Path, capfd: Capture, monkeypatch: Patch, mode: int, mask: int
) -> None:
    """As cp does; also while it is written, lest a secret be open for a moment."""
    Path("out.img").touch()
    Path("out.img").chmod(mode)
    modes: list[int] = []
    while_it_is_written(monkeypatch, lambda path: modes.append(stat.S_IMODE(path.stat().st_mode)))
    before = os.umask(mask)
    try:
        assert run(capfd, "--force", "disk.vhdx", "out.img").exit_code == 0
    finally:
        os.umask(before)
    modes.append(stat.S_IMODE(Path("out.img").stat().st_mode))
    assert modes == [mode, mode]


def test_force_keeps_the_owner_where_that_is_allowed(
    folder: Path, capfd: Capture, monkeypatch: Patch
) -> None:
    """Where it is not, the group of the new file gets no more rights than anybody."""
    needs_superuser()
    Path("out.img").touch()
    os.chown("out.img", 1234, 5678)
    Path("out.img").chmod(0o4764)
    assert run(capfd, "--force", "disk.vhdx", "out.img").exit_code == 0
    status = Path("out.img").stat()
    assert (status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode)) == (1234, 5678, 0o764)

    def fchown(_descriptor: int, _user: int, _group: int) -> None:
        raise PermissionError(1, os.strerror(1))

    monkeypatch.setattr(os, "fchown", fchown)
    assert run(capfd, "--force", "disk.vhdx", "out.img").exit_code == 0
    status = Path("out.img").stat()
    assert (status.st_uid, stat.S_IMODE(status.st_mode)) == (os.geteuid(), 0o744)


# -- nothing else is touched --------------------------------------------------------------------

AUDIT = """
import json, sys
events = []
def hook(event, arguments):
    events.append((event, [str(argument) for argument in arguments]))
sys.addaudithook(hook)
from vhdx2raw.cli import main
code = main(sys.argv[1:])
print(json.dumps([code, events]))
"""
HARMLESS = (
    "array.__new__",
    "builtins.id",
    "code.__new__",
    "compile",
    "ctypes.",
    "cpython.",
    "exec",  # of modules that are imported; the package itself is looked at below
    "fcntl.",
    "gc.",
    "import",
    "marshal.",
    "mmap.",
    "object.__",
    "os.listdir",
    "os.scandir",
    "sys.",
    "_thread.",
    "threading.",
)
"""Events of the work of the interpreter itself, and those that change nothing."""


def is_for_writing(path: str, mode: str, flags: str) -> bool:
    """Return whether a file was opened for anything but reading."""
    number = int(flags)
    return bool(number & (os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND))


def audit(*arguments: str) -> list[tuple[str, list[str]]]:
    """Convert in a process of its own; give what it asked the system for, beyond Python's own."""
    environment = os.environ | {"PYTHONDONTWRITEBYTECODE": "1"}
    command = (sys.executable, "-c", AUDIT)
    outcome = run_program(*arguments, command=command, env=environment)
    assert outcome.err == ""
    code, events = json.loads(outcome.out.splitlines()[-1])
    assert code == 0
    own = tuple({str(Path(place).resolve()) for place in (*sys.path, sys.prefix, sys.base_prefix)})
    theirs = []
    for event, facts in events:
        if event.startswith(HARMLESS):
            continue
        if (
            event == "open"
            and not is_for_writing(*facts)
            and os.path.realpath(facts[0]).startswith(own)
        ):
            continue
        theirs.append((event, facts))
    return theirs


@pytest.mark.parametrize(
    ("words", "made"),
    [
        (["--verify"], ["out.img"]),
        (["--force"], ["out.img"]),
        (["--salvage", "--mapfile", "map"], ["out.img", "map"]),
        (["--hash", "sha256", "--json"], ["out.img"]),
    ],
    ids=" ".join,
)
def test_only_chain_is_read_and_only_output_written(
    folder: Path, words: list[str], made: list[str]
) -> None:
    """By the audit events of the interpreter, for every call of the program."""
    files = {"c.vhdx": child_with({"relative_path": "base.vhdx"}), "base.vhdx": small_parent()}
    write_files(folder, files)
    here = str(folder)
    kinds: dict[str, set[str]] = {"read": set(), "written": set(), "other": set()}
    removed_or_moved: set[str] = set()
    for event, facts in audit(*words, "c.vhdx", "out.img"):
        if event == "open" and facts[0].startswith("/proc/self/fd/"):
            continue  # once more what is open already, to write past the page cache
        if event == "open":
            kind = "written" if is_for_writing(*facts) else "read"
            kinds[kind].add(os.path.relpath(facts[0], here))
        elif event in ("os.link", "os.rename", "os.remove", "os.truncate"):
            removed_or_moved.update(
                os.path.relpath(fact, here) for fact in facts if not fact.lstrip("-").isdigit()
            )
        else:
            kinds["other"].add(event)
    stems = {name: f".{name}." for name in made}
    for name in kinds["written"]:
        assert name.endswith(".part")
        assert name.startswith(tuple(stems.values()))
    temporary = kinds["written"]
    assert {name.rsplit(".", 2)[0] for name in temporary} == {f".{name}" for name in made}
    assert kinds["read"] - temporary - {"."} == {"c.vhdx", "base.vhdx"}
    assert removed_or_moved <= temporary | set(made)
    assert kinds["other"] == set()


FORBIDDEN_MODULES = {
    "asyncio",
    "ftplib",
    "http",
    "marshal",
    "multiprocessing",
    "obstore",
    "pickle",
    "pty",
    "requests",
    "shelve",
    "smtplib",
    "socket",
    "ssl",
    "subprocess",
    "tempfile",
    "urllib",
    "webbrowser",
}
MAKE_REQUESTS = {"asyncio", "obstore", "ssl"}
"""What is used where a URL is read, and only there."""
ASK_NOBODY = ("urllib.parse",)
FORBIDDEN_CALLS = {"eval", "exec", "compile", "__import__", "breakpoint", "input"}
FORBIDDEN_METHODS = {
    "os": ("system", "popen", "exec", "spawn", "posix_spawn", "fork", "startfile", "chmod"),
    "shutil": ("copy", "move", "rmtree", "which", "unpack", "make_archive", "chown"),
    "Path": ("chmod",),
}


def dangers_of(code: str) -> list[str]:
    """Give what a module does that could run other code, leave the machine, or write elsewhere."""
    dangers = []
    for node in ast.walk(ast.parse(code)):
        modules: list[str] = []
        if isinstance(node, ast.Import):
            modules = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            modules = [node.module or ""]
            if node.module == "os":
                dangers += [
                    alias.name
                    for alias in node.names
                    if alias.name.startswith(FORBIDDEN_METHODS["os"])
                ]
        elif isinstance(node, ast.Name) and node.id in FORBIDDEN_CALLS:
            dangers.append(node.id)
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            if node.attr.startswith(FORBIDDEN_METHODS.get(node.value.id, ("\0",))):
                dangers.append(f"{node.value.id}.{node.attr}")
        elif isinstance(node, ast.keyword) and node.arg == "shell":
            dangers.append("shell=")
        modules = [name for name in modules if name not in ASK_NOBODY]
        dangers += [name for name in modules if name.partition(".")[0] in FORBIDDEN_MODULES]
    return dangers


MAY = {
    # Starts nbdkit and what its user asks for, and makes a folder for the socket.
    "cli/commands/serve/server.py": {"shutil.which", "shutil.rmtree", "subprocess", "tempfile"},
    "cli/commands/mount.py": {"os.fork"},  # goes on in the background
    "operations/mount.py": {"tempfile"},  # for what libfuse writes to stderr
}


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: path.stem)
def test_no_module_runs_other_code_or_uses_network(path: Path) -> None:
    if path.parent == PACKAGE / "source/remote":
        allowed = MAKE_REQUESTS
    else:
        allowed = MAY.get(path.relative_to(PACKAGE).as_posix(), set())
    dangers = set(dangers_of(path.read_text(encoding="utf-8")))
    assert {name for name in dangers if not {name, name.partition(".")[0]} & allowed} == set()


@pytest.mark.parametrize(
    "code",
    [
        "import subprocess",
        "import os, pickle",
        "from tempfile import mkstemp",
        "import urllib.request",
        "from os import system",
        "os.system('x')",
        "import os\nos.execvp('x', [])",
        "os.posix_spawn('x', [], {})",
        "x = eval",
        "exec('x')",
        "__import__('x')",
        "run('x', shell=True)",
    ],
)
def test_dangerous_code_would_be_noticed(code: str) -> None:
    assert len(dangers_of(code)) == 1


# -- terminals ----------------------------------------------------------------------------------

ESCAPES = "\x1b]0;owned\x07\x1b[2J\x9b31m\x7f\r\nfake: line\u202e\u2028"
"""Sets a title, clears the screen, rings, makes it red, deletes, feigns a line, turns it round."""
HOSTILE_NAME = f"di{ESCAPES}sk.vhdx"


def hostile_files(folder: Path) -> dict[str, str]:
    """Write images whose every string is hostile; give their names."""
    blocks = {0: Block(content={0: b"x", 71: ESCAPES.encode()[:11]})}
    disk = small_disk()
    disk.creator = ESCAPES
    disk.blocks = dict(disk.blocks) | blocks
    disk.headers[0] = HeaderSpec(sequence_number=1, checksum=1)
    disk.write(folder / HOSTILE_NAME)
    orphan = child_with(
        {
            "relative_path": f".\\{ESCAPES}.vhdx",
            "absolute_win32_path": f"C:\\{ESCAPES}",
            f"key{ESCAPES}": f"value{ESCAPES}",
        }
    )
    orphan.write(folder / f"orphan{ESCAPES}.vhdx")
    (folder / f"text{ESCAPES}").write_bytes(f"text {ESCAPES}".encode() * 500)
    return {
        "unusual": HOSTILE_NAME,
        "orphan": f"orphan{ESCAPES}.vhdx",
        "text": f"text{ESCAPES}",
    }


def words_for(command: str, name: str) -> list[str]:
    """Give the arguments that let a command print as much as it can of a file."""
    more = {
        "convert": ["-v", "--progress", "never", name, f"out{ESCAPES}.img"],
        "info": ["--chain", name],
        "compare": ["--progress", "never", name, HOSTILE_NAME],
        "hash": ["--progress", "never", name],
        "map": [name],
        "check": [name],
    }
    return [command, *more[command]]


def controls_in(text: str) -> set[str]:
    """Give the characters that a terminal might obey, but for the ends of lines."""
    return {char for char in text.replace("\n", "") if not char.isprintable()}


@pytest.mark.parametrize("kind", ["unusual", "orphan", "text"])
@pytest.mark.parametrize("command", COMMANDS)
def test_no_image_string_or_path_commands_a_terminal(folder: Path, command: str, kind: str) -> None:
    """On stdout as on stderr; nor can it feign a line of its own."""
    words = words_for(command, hostile_files(folder)[kind])
    outcome = run_on_terminal(*words, streams=("stdout", "stderr"))
    assert outcome.exit_code not in (2, 70)
    assert "owned" in outcome.err
    assert controls_in(outcome.err) == set()
    assert not any(line.startswith("fake") for line in outcome.err_lines)


@pytest.mark.parametrize("kind", ["unusual", "orphan", "text"])
@pytest.mark.parametrize("command", COMMANDS)
def test_json_escapes_every_string(folder: Path, capfd: Capture, command: str, kind: str) -> None:
    names = hostile_files(folder)
    outcome = run(capfd, *words_for(command, names[kind]), "--json")
    assert outcome.exit_code not in (2, 70)
    assert controls_in(outcome.out) - {"\x7f"} == set()
    assert controls_in(outcome.err) == set()
    if outcome.exit_code == 0:
        strings = set(strings_in(json.loads(outcome.out)))
        assert names[kind] in strings
        assert command != "info" or any("owned" in text for text in strings - {names[kind]})


def strings_in(facts: Any) -> Iterator[str]:  # noqa: ANN401 - anything in JSON
    """Give every string somewhere in a result."""
    if isinstance(facts, str):
        yield facts
    elif isinstance(facts, dict):
        yield from itertools.chain.from_iterable(map(strings_in, facts.values()))
    elif isinstance(facts, list):
        yield from itertools.chain.from_iterable(map(strings_in, facts))


def test_an_error_of_usage_is_printable_too(folder: Path) -> None:
    for words in (
        ["--sparse-size", ESCAPES, "a", "b"],
        ["--hash", ESCAPES, "a", "b"],
        [f"--{ESCAPES}"],
        ["a", "b", ESCAPES],
        ["map", "a", ESCAPES],
    ):
        outcome = run_on_terminal(*words)
        assert outcome.exit_code == 2
        assert "owned" in outcome.err or words[0] == "a"
        assert {char for char in controls_in(outcome.err) if category(char) == "Cc"} == set()


# -- disks that look like other images ----------------------------------------------------------

QEMU_FORMATS = ["qcow2", "vmdk", "vdi", "vhdx", "vpc", "qed", "parallels", "qcow"]


def disk_that_begins_with(start: bytes) -> ImageSpec:
    return ImageSpec(MIB, MIB, {0: Block(content={0: start})})


def assert_is_warned_of(folder: Path, capfd: Capture, start: bytes, name: str) -> None:
    """Convert a disk with this start: a warning, an error if it is to be strict."""
    disk_that_begins_with(start).write(folder / "disk.vhdx")
    words = f"disk: begins like a {name} image, so that a program which guesses the format of the"
    outcome = run(capfd, "--json", "--force", "disk.vhdx", "out.img")
    assert outcome.exit_code == 0
    [line] = outcome.err_lines
    assert line.startswith(f"vhdx2raw: disk.vhdx: warning: {words}")
    [warning] = json.loads(outcome.out)["warnings"]
    assert (warning["filename"], warning["rule"]) == ("disk.vhdx", "R121")
    assert warning["message"].startswith(words)
    assert has_expected_bytes(folder / "out.img", disk_that_begins_with(start))
    (folder / "out.img").unlink()
    outcome = run(capfd, "--strict", "disk.vhdx", "out.img")
    assert outcome.exit_code == 4
    error, hint = outcome.err_lines
    assert error.startswith(f"vhdx2raw: disk.vhdx: {words}")
    assert hint == "vhdx2raw: hint: without --strict this is a warning"
    assert names_in(folder) == ["disk.vhdx"]


MAGICS = {
    "VHDX": b"vhdxfile",
    "qcow2": b"QFI\xfb\0\0\0\3",
    "VMDK": b"KDMV\1\0\0\0",
    "VDI": bytes(0x40) + b"\x7f\x10\xda\xbe",
    "legacy VHD": b"conectix",
}


@pytest.mark.parametrize("name", MAGICS)
def test_start_of_another_format_is_a_warning(folder: Path, capfd: Capture, name: str) -> None:
    assert_is_warned_of(folder, capfd, MAGICS[name], name)


@pytest.mark.parametrize("qemu_format", QEMU_FORMATS)
def test_start_that_qemu_recognizes_is_a_warning(
    folder: Path, capfd: Capture, qemu_format: str
) -> None:
    """The start of a real image of each format that qemu-img can make, written by a guest."""
    image = folder / "image"
    made = subprocess.run(
        [needs_program("qemu-img"), "create", "-q", "-f", qemu_format, image, "64M"],
        check=False,
        capture_output=True,
    )
    if made.returncode:
        skip_unless_ci(f"qemu-img cannot make {qemu_format}")
    start = image.read_bytes()[: 64 * 1024]
    image.unlink()
    disk_that_begins_with(start).write(folder / "disk.vhdx")
    outcome = run(capfd, "--json", "--force", "disk.vhdx", "out.img")
    assert [warning["rule"] for warning in json.loads(outcome.out)["warnings"]] == ["R121"]
    (folder / "out.img").unlink()
    assert run(capfd, "--strict", "disk.vhdx", "out.img").exit_code == 4
    assert names_in(folder) == ["disk.vhdx"]


@pytest.mark.parametrize(
    "start",
    [
        b"",
        b"\xeb\x3c\x90mkfs.fat" + bytes(499) + b"\x55\xaa",
        bytes(8) + b"vhdxfile",
        b"QFJ\xfb",
        b"VHDXFILE",
    ],
)
def test_an_ordinary_disk_is_no_warning(folder: Path, capfd: Capture, start: bytes) -> None:
    disk_that_begins_with(start).write(folder / "disk.vhdx")
    outcome = run(capfd, "--json", "--strict", "disk.vhdx", "out.img")
    assert outcome.exit_code == 0
    assert json.loads(outcome.out)["warnings"] == []


# -- hostile numbers ----------------------------------------------------------------------------

ALLOWANCE = 48 * MIB
"""Of memory, beyond what a small disk takes."""
VIRTUAL_SIZE_AT = 0x210008
BLOCK_SIZE_AT = 0x210000
FIRST_ITEM_AT = 0x200020
HUGE = struct.pack("<I", 0xFFF0_0000)


def with_regions(guid: UUID) -> ImageSpec:
    """Describe an image one region of which claims to have 4 GiB."""
    spec = small_disk()
    for table in spec.region_tables:
        table.entry(guid).length = 0xFFF0_0000
    return spec


def with_log() -> ImageSpec:
    """Describe an image that claims to have 4 GiB of log, which holds updates."""
    spec = small_disk()
    for header in spec.headers:
        header.log_length, header.log_guid = 0xFFF0_0000, UUID(int=1)
    return spec


def patched(patches: dict[int, bytes]) -> ImageSpec:
    spec = small_disk()
    spec.patches = patches
    return spec


HOSTILE: dict[str, tuple[Callable[[], ImageSpec], int]] = {
    "disk of 16 TiB": (lambda: ImageSpec(16 * TIB, MIB, {0: Block()}), 0),
    "disk of 8 EiB": (lambda: patched({VIRTUAL_SIZE_AT: struct.pack("<Q", 1 << 63)}), 5),
    "blocks of 4 GiB": (lambda: patched({BLOCK_SIZE_AT: HUGE}), 5),
    "BAT of 4 GiB": (lambda: with_regions(BAT_REGION), 5),
    "metadata of 4 GiB": (lambda: with_regions(METADATA_REGION), 5),
    "item of 4 GiB": (lambda: patched({FIRST_ITEM_AT + 20: HUGE}), 5),
    "65535 items": (lambda: patched({0x20000A: b"\xff\xff"}), 5),
    "log of 4 GiB": (with_log, 5),
    "block past the end": (lambda: patched({3 * MIB: b"\x06\0\xf0" + b"\xff" * 5}), 5),
}


@pytest.fixture(scope="module")
def usual_peak(tmp_path_factory: pytest.TempPathFactory) -> int:
    """Give the memory that a small, sound disk takes."""
    path = tmp_path_factory.mktemp("usual") / "disk.vhdx"
    small_disk().write(path)
    exit_code, peak, _ = run_and_measure("check", path)
    assert exit_code == 0
    return peak


@pytest.mark.parametrize(
    ("what", "words"),
    [
        *((what, ["check"]) for what in HOSTILE),
        ("disk of 16 TiB", ["convert"]),
        ("BAT of 4 GiB", ["convert", "--salvage"]),
        ("log of 4 GiB", ["convert", "--salvage"]),
        ("block past the end", ["convert", "--salvage"]),
    ],
)
def test_huge_numbers_take_no_memory(
    folder: Path, usual_peak: int, what: str, words: list[str]
) -> None:
    make, expected = HOSTILE[what]
    make().write(folder / "disk.vhdx")
    more = [] if words == ["check"] else ["null:"]
    exit_code, peak, _ = run_and_measure(*words, "disk.vhdx", *more)
    assert exit_code == expected or (expected and "--salvage" in words and exit_code in (3, 4, 5))
    assert peak < usual_peak + ALLOWANCE


# -- what is promised ---------------------------------------------------------------------------


def test_every_promise_names_tests_that_exist() -> None:
    lines = (ROOT / "SECURITY.md").read_text(encoding="utf-8").splitlines()
    rows = [line.split("|")[1:-1] for line in lines if line.startswith("| ")][1:]
    assert len(rows) > 8
    for promise, _, tests in rows:
        names = re.findall(r"`(tests/[\w/]+\.py)`", tests)
        assert names, promise
        for name in names:
            assert (ROOT / name).is_file(), name


def test_recommended_command_refuses_hostile_images(folder: Path, capfd: Capture) -> None:
    text = (ROOT / "SECURITY.md").read_text(encoding="utf-8")
    [recipe] = re.findall(r"^```sh\nvhdx2raw (.*)\n```$", text, re.MULTILINE)
    small_disk().write(folder / "upload.vhdx")
    assert run(capfd, *recipe.split()).exit_code == 0
    assert has_expected_bytes(folder / "disk.img", small_disk())
    (folder / "disk.img").unlink()
    for spec in (ImageSpec(3 * TIB), disk_that_begins_with(MAGICS["qcow2"])):
        spec.write(folder / "upload.vhdx")
        assert run(capfd, *recipe.split()).exit_code == 4
        assert names_in(folder) == ["disk.vhdx", "upload.vhdx"]
