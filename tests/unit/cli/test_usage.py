"""The help at 80 columns, misspelled commands, names in every locale, and values with a hint."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import chains
from tests.support.builder import MIB, Block, ImageSpec, child_of
from tests.support.cli import run, run_program, small_disk
from tests.support.files import has_expected_bytes, names_in
from vhdx2raw.cli.app import COMMANDS
from vhdx2raw.cli.usage import INPUT, NETWORK, NEXT, OUTPUT, PANELS, REPORTING, SPEED, TRUST
from vhdx2raw.source.remote.url import DOWNLOAD

pytestmark = pytest.mark.slow

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give the current folder, which holds disk.vhdx."""
    monkeypatch.chdir(tmp_path)
    small_disk().write(tmp_path / "disk.vhdx")
    return tmp_path


# -- the help -------------------------------------------------------------------------------------


def help_of(monkeypatch: pytest.MonkeyPatch, capfd: Capture, *words: str, columns: int = 80) -> str:
    """Return the help as it is printed in a window of so many columns."""
    monkeypatch.setenv("COLUMNS", str(columns))
    outcome = run(capfd, *words)
    assert (outcome.exit_code, outcome.err) == (0, "")
    return outcome.out


@pytest.mark.parametrize("name", ["", *COMMANDS])
def test_help_fits_into_80_columns(
    monkeypatch: pytest.MonkeyPatch, capfd: Capture, name: str
) -> None:
    text = help_of(monkeypatch, capfd, *name.split(), "--help")
    assert [line for line in text.splitlines() if len(line) > 80] == []
    assert "..." not in text.replace("SRC...", "").replace("IMAGE...", "").replace("[ARGS]...", "")


@pytest.mark.parametrize("name", ["", *COMMANDS])
def test_short_help_is_help(monkeypatch: pytest.MonkeyPatch, capfd: Capture, name: str) -> None:
    words = name.split()
    assert help_of(monkeypatch, capfd, *words, "-h") == help_of(
        monkeypatch, capfd, *words, "--help"
    )


def test_wide_window_gets_wider_help(monkeypatch: pytest.MonkeyPatch, capfd: Capture) -> None:
    text = help_of(monkeypatch, capfd, "convert", "-h", columns=120)
    widest = max(map(len, text.splitlines()))
    assert 80 < widest <= 100


def test_options_of_convert_stand_in_groups(
    monkeypatch: pytest.MonkeyPatch, capfd: Capture
) -> None:
    text = help_of(monkeypatch, capfd, "convert", "-h")
    titles = re.findall(r"^([A-Z].*):$", text, re.MULTILINE)
    assert titles == ["Arguments", INPUT, OUTPUT, NEXT, TRUST, SPEED, NETWORK, REPORTING]
    groups = dict(zip(titles, re.split(r"^[A-Z].*:$", text, flags=re.MULTILINE)[1:], strict=True))
    for title, option in [
        *((INPUT, "--parent FILE"), (OUTPUT, "--update"), (OUTPUT, "--force")),
        *((NEXT, "--output-format FORMAT"), (NEXT, "--bmap FILE")),
        *((TRUST, "--salvage"), (TRUST, "--verify"), (SPEED, "--workers N"), (REPORTING, "--json")),
        *((NETWORK, "--retries N"), (REPORTING, "-h, --help")),
    ]:
        assert option in groups[title]


def test_help_of_convert_fits_two_screens(monkeypatch: pytest.MonkeyPatch, capfd: Capture) -> None:
    assert len(help_of(monkeypatch, capfd, "convert", "--help").splitlines()) <= 2 * 40


@pytest.mark.parametrize("name", COMMANDS)
def test_option_without_a_group_stands_first(
    monkeypatch: pytest.MonkeyPatch, capfd: Capture, name: str
) -> None:
    titles = re.findall(
        r"^([A-Z].*):$", help_of(monkeypatch, capfd, name, "-h"), flags=re.MULTILINE
    )
    assert titles[1:] == [title for title in PANELS if title in titles]


def test_no_command_loads_rich(folder: Path) -> None:
    """It takes longer to load than all the rest, and the help has no use for it."""
    code = (
        "import sys; from vhdx2raw.cli import main; main(sys.argv[1:]);"
        "sys.exit(any(name.partition('.')[0] == 'rich' for name in sys.modules))"
    )
    for words in (
        ["info", "disk.vhdx"],
        ["convert", "--help"],
        ["--bogus"],
        ["disk.vhdx", "null:"],
    ):
        done = subprocess.run([sys.executable, "-c", code, *words], check=False, cwd=folder)
        assert done.returncode == 0, words


# -- misspelled commands --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("word", "command"),
    [("inof", "info"), ("chekc", "check"), ("INFO", "info"), ("comapre", "compare")],
)
def test_misspelled_command_is_recognized(
    folder: Path, capfd: Capture, word: str, command: str
) -> None:
    outcome = run(capfd, "-p" if word == "-" else word, "disk.vhdx")
    problem = f"vhdx2raw: '{word}' is not a file; did you mean the command '{command}'?\n"
    assert (outcome.exit_code, outcome.out, outcome.err) == (2, "", problem)


def test_file_with_a_name_like_a_command_is_converted(folder: Path, capfd: Capture) -> None:
    (folder / "disk.vhdx").rename("inof")
    assert run(capfd, "inof", "out.img").exit_code == 0
    assert has_expected_bytes(folder / "out.img", small_disk())


def test_unlike_word_is_a_missing_file(folder: Path, capfd: Capture) -> None:
    outcome = run(capfd, "export.vhdx", "out.img")
    assert (outcome.exit_code, outcome.err) == (
        8,
        "vhdx2raw: export.vhdx: No such file or directory\n",
    )


def test_failure_before_the_first_byte_leaves_no_bar(folder: Path, capfd: Capture) -> None:
    outcome = run(capfd, "-p", "missing.vhdx", "out.img")
    assert outcome.err == "vhdx2raw: missing.vhdx: No such file or directory\n"


# -- errors of usage ------------------------------------------------------------------------------

HINT = "vhdx2raw: hint: see vhdx2raw {} --help"
USAGE = [
    (
        ["disk.vhdx"],
        "give SRC and DST; many disks are converted by: vhdx2raw batch SRC... --output-dir DIR",
        "convert",
    ),
    (["--verify", "disk.vhdx", "-"], "--verify needs a DST that can be read back", "convert"),
    (["map"] * 2 + ["x"], "Got unexpected extra argument(s) (x)", "map"),
    (["--workr"], "No such option: --workr (Possible options: --workers)", "convert"),
    (["map", "--json", "--picture", "x"], "give only one of --json, --picture and --svg", "map"),
    (["-q", "-v", "a", "b"], "-q and -v contradict each other", "convert"),
]


@pytest.mark.parametrize(("words", "problem", "command"), USAGE, ids=lambda value: str(value)[:30])
def test_wrong_usage_is_one_line_and_a_hint(
    capfd: Capture, words: list[str], problem: str, command: str
) -> None:
    outcome = run(capfd, *words)
    assert (outcome.exit_code, outcome.out) == (2, "")
    assert outcome.err_lines == [f"vhdx2raw: {problem}", HINT.format(command)]


def test_invalid_value_names_its_option(capfd: Capture) -> None:
    outcome = run(capfd, "--max-virtual-size", "big", "a", "b")
    problem = "Invalid value for '--max-virtual-size': 'big' is not a size such as 4096, 4k or 1M"
    assert outcome.err_lines == [f"vhdx2raw: {problem}", HINT.format("convert")]


# -- what is typed instead ------------------------------------------------------------------------


@pytest.mark.parametrize("size", ["1MiB", "1mib", "1Mi", "1024KiB", "1024Ki", "1m"])
def test_size_in_binary_units_is_taken(folder: Path, capfd: Capture, size: str) -> None:
    outcome = run(capfd, "-S", size, "disk.vhdx", "out.img")
    assert (outcome.exit_code, outcome.err) == (0, "")
    assert has_expected_bytes(folder / "out.img", small_disk())


@pytest.mark.parametrize(("size", "written"), [("1MB", "1M"), ("64kb", "64K"), ("2Tb", "2T")])
def test_size_in_decimal_units_gets_a_hint(
    folder: Path, capfd: Capture, size: str, written: str
) -> None:
    outcome = run(capfd, "--max-virtual-size", size, "disk.vhdx", "out.img")
    assert outcome.exit_code == 2
    assert f"'{size}' may mean powers of 1000 or of 1024; write {written}iB, or" in outcome.err
    assert names_in(folder) == ["disk.vhdx"]


@pytest.mark.parametrize("name", ["SHA-256", "sha256", "Sha_256"])
def test_algorithm_is_taken_as_standards_write_it(folder: Path, capfd: Capture, name: str) -> None:
    expected = run(capfd, "hash", "disk.vhdx").out
    assert run(capfd, "hash", "-a", name, "disk.vhdx").out == expected
    outcome = run(capfd, "--hash", name, "disk.vhdx", "null:")
    assert outcome.out.split()[0] == expected.split()[0]


@pytest.mark.parametrize("source", ["nfs://server/disk.vhdx", "ftp://host/disk.vhdx"])
def test_url_gets_a_hint(folder: Path, capfd: Capture, source: str) -> None:
    outcome = run(capfd, source, "out.img")
    assert outcome.exit_code == 4
    assert outcome.err_lines == [
        f"vhdx2raw: {source}: file: is a URL, not a VHDX file",
        f"vhdx2raw: hint: {DOWNLOAD}",
    ]


def test_null_device_is_no_output_at_all(folder: Path, capfd: Capture) -> None:
    before = Path(os.devnull).stat().st_mode
    outcome = run(capfd, "disk.vhdx", os.devnull)
    assert (outcome.exit_code, outcome.err) == (0, "")
    assert Path(os.devnull).stat().st_mode == before


def test_folder_as_output_gets_a_hint(folder: Path, capfd: Capture) -> None:
    outcome = run(capfd, "disk.vhdx", ".")
    assert outcome.exit_code == 7
    assert outcome.err_lines[1] == "vhdx2raw: hint: name a file in it"


# -- names ----------------------------------------------------------------------------------------

ASCII_LOCALE = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}


def run_in_ascii(*words: str) -> tuple[int, str, str]:
    outcome = run_program(*words, env=os.environ | ASCII_LOCALE, encoding="utf-8")
    return outcome.exit_code, outcome.out, outcome.err


def test_file_outside_ascii_is_read_in_an_ascii_locale(folder: Path) -> None:
    (folder / "disk.vhdx").rename("dísk.vhdx")
    assert run_in_ascii("dísk.vhdx", "öut.img") == (0, "", "")
    assert has_expected_bytes(folder / "öut.img", small_disk())
    exit_code, out, err = run_in_ascii("info", "dísk.vhdx")
    assert (exit_code, err) == (0, "")
    assert out.splitlines()[0] == r"image:          d\xc3\xadsk.vhdx"
    assert run_in_ascii("hash", "öut.img")[0] == 4


def test_file_that_is_missing_is_named_in_an_ascii_locale(folder: Path) -> None:
    exit_code, _, err = run_in_ascii("fehlt-ü.vhdx", "out.img")
    assert (exit_code, err) == (8, "vhdx2raw: fehlt-\\xc3\\xbc.vhdx: No such file or directory\n")


@pytest.mark.parametrize("relative", [".\\bäse.vhdx", ".\\BÄSE.VHDX"], ids=["exact", "case"])
def test_parent_outside_ascii_is_found_in_an_ascii_locale(folder: Path, relative: str) -> None:
    base = chains.small_disk()
    base.write(folder / "bäse.vhdx")
    child_of(base, relative).write(folder / "child.avhdx")
    assert run_in_ascii("child.avhdx", "out.img") == (0, "", "")
    assert has_expected_bytes(folder / "out.img", base)


def test_missing_parent_outside_ascii_is_reported_in_an_ascii_locale(folder: Path) -> None:
    child_of(chains.small_disk(), ".\\bäse.vhdx").write(folder / "child.avhdx")
    exit_code, _, err = run_in_ascii("child.avhdx", "out.img")
    assert exit_code == 6
    assert r"expected .\b\xe4se.vhdx with" in err
    assert r"tried b\xc3\xa4se.vhdx: does not exist" in err


def test_label_outside_ascii_is_printed_in_an_ascii_locale(folder: Path) -> None:
    ext = {1080: b"\x53\xef", 1144: "Größe".encode()}
    ImageSpec(MIB, MIB, {0: Block(content=ext)}).write(folder / "labelled.vhdx")
    exit_code, out, err = run_in_ascii("info", "labelled.vhdx")
    assert (exit_code, err) == (0, "")
    assert r'ext2 "Gr\xf6\xdfe"' in out


def test_name_that_is_not_utf8_is_shown_by_its_bytes(folder: Path, capfd: Capture) -> None:
    name = os.fsdecode(b"d\xff\xfesk.vhdx")
    (folder / "disk.vhdx").rename(name)
    assert r"image:          d\xff\xfesk.vhdx" in run(capfd, "info", name).out
    assert r"d\xff\xfesk.vhdx: 5 MiB" in run(capfd, "-v", name, "out.img").err
