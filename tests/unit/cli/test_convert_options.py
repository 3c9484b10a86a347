"""What `convert` does beyond copying: digests, reading back, salvage, and what it refuses."""

import hashlib
import io
import itertools
import json
import os
import signal
import subprocess
import time
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from tests.support.builder import GIB, KIB, MIB, Block, HeaderSpec, ImageSpec, make_dirty
from tests.support.cli import (
    MODULE,
    TIMEOUT,
    Outcome,
    progress_lines,
    run,
    run_program,
    small_disk,
    start_program,
)
from tests.support.devices import OLD_BYTE, Devices
from tests.support.files import has_expected_bytes, names_in
from tests.support.peers import needs_program
from tests.support.raw import break_file, raw_of
from tests.support.schemas import validator_of
from vhdx2raw.cli import main
from vhdx2raw.cli.commands.convert import outcome as conversion
from vhdx2raw.output.hashes import ALGORITHMS
from vhdx2raw.output.sparse_file import SparseFileSink
from vhdx2raw.source.file import FileSource

SIZE = small_disk().virtual_disk_size
SHA256 = small_disk().expected_sha256()
VALIDATOR = validator_of("convert")
SIGNALS = {signal.SIGINT: 130, signal.SIGTERM: 143}
Capture = pytest.CaptureFixture[str]
Patch = pytest.MonkeyPatch

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("disk")]


def facts_in(outcome: Outcome) -> dict[str, Any]:
    """Read the JSON, which must fit its schema."""
    facts: dict[str, Any] = json.loads(outcome.out)
    VALIDATOR.validate(facts)
    return facts


def facts_of(capfd: Capture, *arguments: str, exit_code: int = 0) -> dict[str, Any]:
    """Convert disk.vhdx to out.img; give the JSON."""
    outcome = run(capfd, "--json", *arguments, "disk.vhdx", "out.img")
    assert outcome.exit_code == exit_code
    return facts_in(outcome)


def assert_refused(outcome: Outcome, exit_code: int, *words: str) -> None:
    """Check for one line, perhaps with a hint, that has all of these words."""
    assert (outcome.exit_code, outcome.out) == (exit_code, "")
    for word in words:
        assert word in outcome.err
    if exit_code != 2:
        first, *hints = outcome.err_lines
        assert first.startswith("vhdx2raw: ")
        assert len(hints) <= 1
        assert all(line.startswith("vhdx2raw: hint: ") for line in hints)


# -- JSON ---------------------------------------------------------------------------------------


def test_the_schema_allows_nothing_else(folder: Path, capfd: Capture) -> None:
    facts = facts_of(capfd, "--salvage", "--hash", "sha256")
    for wrong in (
        facts | {"more": 1},
        facts | {"verified": "yes"},
        facts | {"virtual-size": -1},
        facts | {"chain": []},
        facts | {"lost-ranges": [{"start": 0, "length": 0}]},
        facts | {"hash": {"algorithm": "sha256", "digest": "XY"}},
    ):
        assert not VALIDATOR.is_valid(wrong)
    optional = {"hash", "damage", "lost-size", "lost-ranges", "unlisted-ranges", "actual-size"}
    for key in facts:
        without = {name: value for name, value in facts.items() if name != key}
        assert VALIDATOR.is_valid(without) == (key in {"hash", "hashes", "actual-size"})
    assert VALIDATOR.is_valid({key: facts[key] for key in facts.keys() - optional})


# -- digests ------------------------------------------------------------------------------------


def test_line_has_digest_and_output(folder: Path, capfd: Capture) -> None:
    outcome = run(capfd, "--hash", "sha256", "disk.vhdx", "out.img")
    assert (outcome.exit_code, outcome.out, outcome.err) == (0, f"{SHA256}  out.img\n", "")
    assert has_expected_bytes(folder / "out.img", small_disk())


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_every_algorithm_digests_the_output(folder: Path, capfd: Capture, algorithm: str) -> None:
    facts = facts_of(capfd, "--hash", algorithm)
    expected = hashlib.new(algorithm.replace("-", "_"), raw_of(small_disk())).hexdigest()
    assert facts["hash"] == {"algorithm": algorithm, "digest": expected}


@pytest.mark.parametrize("name", ["out.img", "new\nline", "back\\slash"], ids=repr)
def test_the_line_is_what_sha256sum_checks(folder: Path, name: str) -> None:
    line = subprocess.run(
        [*MODULE, "--hash", "sha256", "disk.vhdx", name], check=True, capture_output=True
    ).stdout
    sha256sum = needs_program("sha256sum")
    check = [sha256sum, "--check", "--strict", "--status"]
    assert subprocess.run(check, input=line, check=False).returncode == 0
    (folder / name).write_bytes(b"something else")
    assert subprocess.run(check, input=line, check=False).returncode == 1


@pytest.mark.parametrize("words", [["-S", "0"], ["-S", "1M"], ["--workers", "4"], ["--verify"]])
def test_digest_does_not_depend_on_how_it_is_written(
    folder: Path, capfd: Capture, words: list[str]
) -> None:
    assert facts_of(capfd, "--hash", "sha256", *words)["hash"]["digest"] == SHA256
    assert has_expected_bytes(folder / "out.img", small_disk())


def test_the_source_is_not_read_twice_for_a_digest(
    folder: Path, capfd: Capture, monkeypatch: Patch
) -> None:
    """Every stored byte of the disk is read exactly once, but for the look at its start."""
    reads: list[tuple[int, int]] = []
    real_read = FileSource.pread_into

    def recording_read(source: FileSource, file_offset: int, buffer: memoryview) -> None:
        reads.append((file_offset, len(buffer)))
        real_read(source, file_offset, buffer)

    monkeypatch.setattr(FileSource, "pread_into", recording_read)
    facts = facts_of(capfd, "--hash", "sha256")
    payload = sorted(read for read in reads if read[0] >= 4 * MIB and read[1] > 4 * KIB)
    assert facts["data-size"] == 3 * MIB
    assert sum(length for _, length in payload) == 2 * MIB  # one block is a hole of the file
    assert all(sum(one) <= other[0] for one, other in itertools.pairwise(payload))


def test_digest_of_a_stream_goes_to_stderr(folder: Path) -> None:
    with (folder / "stream").open("wb") as stream:
        outcome = run_program("--hash", "sha256", "disk.vhdx", "-", stdout=stream)
    assert (outcome.exit_code, outcome.err) == (0, f"{SHA256}  -\n")
    assert has_expected_bytes(folder / "stream", small_disk())


def test_a_digest_needs_no_output(folder: Path, capfd: Capture) -> None:
    assert run(capfd, "--hash", "sha256", "disk.vhdx", "null:").out == f"{SHA256}  null:\n"
    assert names_in(folder) == ["disk.vhdx"]


@pytest.mark.parametrize("number", SIGNALS)
def test_signal_ends_the_digest_of_an_empty_disk(folder: Path, number: signal.Signals) -> None:
    """It takes a minute, though there is nothing to read."""
    ImageSpec(100 * GIB).write(folder / "disk.vhdx")
    process = start_program("--hash", "sha256", "disk.vhdx", "out.img")
    with process:
        deadline = time.monotonic() + TIMEOUT
        while len(names_in(folder)) < 2:
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.01)
        time.sleep(0.1)
        process.send_signal(number)
        assert process.wait(TIMEOUT) == SIGNALS[number]
    assert names_in(folder) == ["disk.vhdx"]


# -- reading back -------------------------------------------------------------------------------


def test_json_has_whether_the_output_was_verified(folder: Path, capfd: Capture) -> None:
    assert facts_of(capfd)["verified"] is False
    assert facts_of(capfd, "--force", "--verify")["verified"] is True
    assert has_expected_bytes(folder / "out.img", small_disk())


def after_flush(monkeypatch: Patch, change: Callable[[Path], object]) -> None:
    """Change the temporary file when it has been written."""
    real_flush = SparseFileSink.flush

    def flush(sink: SparseFileSink) -> None:
        real_flush(sink)
        assert sink.readable_path
        change(Path(sink.readable_path))

    monkeypatch.setattr(SparseFileSink, "flush", flush)


def put(offset: int, data: bytes) -> Callable[[Path], object]:
    """Give what overwrites some bytes of a file."""

    def change(path: Path) -> None:
        with path.open("r+b") as file:
            file.seek(offset)
            file.write(data)

    return change


CHANGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "data": (put(4096, b"B"), "(bytes that differ: 1, the first at 0x1000)"),
    "the end of the data": (put(12287, b"\0"), "(bytes that differ: 1, the first at 0x2fff)"),
    "a hole": (put(3 * MIB + 5, b"x"), "(bytes that differ: 1, the first at 0x300005)"),
    "the last byte": (put(SIZE - 1, b"x"), "(bytes that differ: 1, the first at 0x5001ff)"),
    "what follows": (put(SIZE, b"\0"), f"is {SIZE + 1} bytes long, and not {SIZE}"),
    "the end": (lambda path: os.truncate(path, SIZE - 1), f"is {SIZE - 1} bytes long, and not"),
}


@pytest.mark.parametrize("what", CHANGES)
def test_verify_refuses_changed_output(
    folder: Path, capfd: Capture, monkeypatch: Patch, what: str
) -> None:
    change, words = CHANGES[what]
    after_flush(monkeypatch, change)
    outcome = run(capfd, "--verify", "disk.vhdx", "out.img")
    assert_refused(outcome, 7, "vhdx2raw: out.img: ", words, "the storage or the memory")
    assert names_in(folder) == ["disk.vhdx"]
    assert run(capfd, "disk.vhdx", "unverified.img").exit_code == 0


def test_a_failed_check_leaves_the_old_output(
    folder: Path, capfd: Capture, monkeypatch: Patch
) -> None:
    (folder / "out.img").write_bytes(b"precious")
    after_flush(monkeypatch, put(4096, b"B"))
    assert run(capfd, "--force", "--verify", "disk.vhdx", "out.img").exit_code == 7
    assert names_in(folder) == ["disk.vhdx", "out.img"]
    assert (folder / "out.img").read_bytes() == b"precious"


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_ends_the_reading_back(
    folder: Path, monkeypatch: Patch, number: signal.Signals
) -> None:
    compare = import_module(
        "vhdx2raw.operations.compare"
    )  # the package gives its function that name
    real_compare = compare._compare

    def slow_compare(*arguments: Any) -> Any:  # noqa: ANN401 - those of the function
        os.kill(os.getpid(), number)
        time.sleep(0.15)
        return real_compare(*arguments)

    monkeypatch.setattr(compare, "_compare", slow_compare)
    assert main(["--verify", "disk.vhdx", "out.img"]) == SIGNALS[number]
    assert names_in(folder) == ["disk.vhdx"]


def test_progress_counts_what_is_read_back_as_well(folder: Path, capfd: Capture) -> None:
    words = ["--progress", "json", "--workers", "1", "--verify"]
    lines = progress_lines(run(capfd, *words, "disk.vhdx", "out.img").err)
    assert lines == sorted(lines)
    done, total = lines[-1]
    assert done == total >= 2 * 3 * MIB


# -- salvage ------------------------------------------------------------------------------------


def truncated_disk(folder: Path) -> bytes:
    """Write cut.vhdx, whose last stored block has lost its second half; give what is left."""
    spec = ImageSpec(4 * MIB, MIB, {index: Block() for index in (0, 1, 3)})
    spec.write(folder / "cut.vhdx")
    os.truncate(folder / "cut.vhdx", (folder / "cut.vhdx").stat().st_size - MIB // 2)
    return spec.expected_disk(0, 3 * MIB + MIB // 2) + bytes(MIB // 2)


MAPFILE = """\
# Mapfile. Created by vhdx2raw
# current_pos  current_status  current_pass
0x0000400000     +               1
#      pos        size  status
0x0000000000  0x0000380000  +
0x0000380000  0x0000080000  -
"""


@pytest.mark.parametrize("words", [[], ["-q"]], ids=["", "-q"])
def test_salvage_keeps_the_rest_and_lists_the_loss(
    folder: Path, capfd: Capture, words: list[str]
) -> None:
    left = truncated_disk(folder)
    outcome = run(capfd, "--salvage", "--mapfile", "map", *words, "cut.vhdx", "out.img")
    assert (outcome.exit_code, outcome.out) == (3, "")
    assert outcome.err_lines[-1] == (
        "vhdx2raw: cut.vhdx: salvaged; lost 512 KiB (524288 bytes; ranges: 1), which are zeros"
        " in out.img"
    )
    assert outcome.err_lines[0].startswith("vhdx2raw: cut.vhdx: damaged: ")
    is_right = (folder / "out.img").read_bytes() == left
    assert is_right
    assert (folder / "map").read_text() == MAPFILE


def test_json_lists_damage_and_losses(folder: Path, capfd: Capture) -> None:
    truncated_disk(folder)
    outcome = run(capfd, "--json", "--salvage", "--hash", "sha256", "cut.vhdx", "out.img")
    assert outcome.exit_code == 3
    facts = facts_in(outcome)
    assert facts["lost-size"] == MIB // 2
    assert facts["lost-ranges"] == [{"start": 3 * MIB + MIB // 2, "length": MIB // 2}]
    assert {damage["filename"] for damage in facts["damage"]} == {"cut.vhdx"}
    assert facts["hash"]["digest"] == hashlib.sha256((folder / "out.img").read_bytes()).hexdigest()


def test_damage_without_salvage_is_refused(folder: Path, capfd: Capture) -> None:
    truncated_disk(folder)
    assert_refused(run(capfd, "cut.vhdx", "out.img"), 5, "vhdx2raw: cut.vhdx: ")
    assert names_in(folder) == ["cut.vhdx", "disk.vhdx"]


def test_salvage_of_a_sound_disk_is_silent(folder: Path, capfd: Capture) -> None:
    outcome = run(capfd, "--salvage", "--mapfile", "map", "disk.vhdx", "out.img")
    assert (outcome.exit_code, outcome.out, outcome.err) == (0, "", "")
    assert has_expected_bytes(folder / "out.img", small_disk())
    assert (folder / "map").read_text().splitlines()[4:] == [f"0x0000000000  {SIZE:#012x}  +"]
    facts = facts_of(capfd, "--salvage", "--force")
    assert (facts["damage"], facts["lost-size"], facts["lost-ranges"]) == ([], 0, [])


@pytest.mark.parametrize("bad", [0, 600, MIB - 1])
def test_bad_sectors_are_lost_by_the_sector(
    folder: Path, capfd: Capture, monkeypatch: Patch, bad: int
) -> None:
    """Also in the first sectors, where a look is taken at what the disk begins with."""
    spec = ImageSpec(2 * MIB, MIB, {0: Block(), 1: Block()})
    spec.write(folder / "disk.vhdx")
    break_file(monkeypatch, folder / "disk.vhdx", 4 * MIB + bad)
    assert run(capfd, "--no-clone", "disk.vhdx", "none.img").exit_code == 8
    facts = facts_of(capfd, "--salvage", "--no-clone", exit_code=3)
    assert facts["lost-ranges"] == [{"start": bad // 512 * 512, "length": 512}]
    expected = raw_of(spec)
    expected[bad // 512 * 512 : bad // 512 * 512 + 512] = bytes(512)
    is_right = (folder / "out.img").read_bytes() == expected
    assert is_right
    assert names_in(folder) == ["disk.vhdx", "out.img"]


def test_salvage_replaces_no_file_either(folder: Path, capfd: Capture) -> None:
    truncated_disk(folder)
    (folder / "out.img").write_bytes(b"precious")
    outcome = run(capfd, "--salvage", "cut.vhdx", "out.img")
    assert_refused(outcome, 7, "vhdx2raw: out.img: exists already")
    assert (folder / "out.img").read_bytes() == b"precious"
    assert run(capfd, "--salvage", "--force", "cut.vhdx", "out.img").exit_code == 3


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("old", "old: exists already"),
        ("none/map", "none/map: cannot be written: No such file or directory"),
        (".", ".: is a directory, not a file to write"),
    ],
)
def test_bad_map_file_is_refused_before_the_work(
    folder: Path, capfd: Capture, name: str, words: str
) -> None:
    truncated_disk(folder)
    (folder / "old").write_bytes(b"precious")
    outcome = run(capfd, "--salvage", "--mapfile", name, "cut.vhdx", "out.img")
    assert_refused(outcome, 7, words)
    assert names_in(folder) == ["cut.vhdx", "disk.vhdx", "old"]
    assert (folder / "old").read_bytes() == b"precious"


def test_a_map_file_never_replaces_the_input(folder: Path, capfd: Capture) -> None:
    truncated_disk(folder)
    before = (folder / "cut.vhdx").read_bytes()
    words = ["--salvage", "--force", "--mapfile", "cut.vhdx"]
    outcome = run(capfd, *words, "cut.vhdx", "out.img")
    assert_refused(outcome, 7, "cut.vhdx: is the input itself")
    assert names_in(folder) == ["cut.vhdx", "disk.vhdx"]
    is_same = (folder / "cut.vhdx").read_bytes() == before
    assert is_same


def test_force_replaces_a_map_file(folder: Path, capfd: Capture) -> None:
    truncated_disk(folder)
    (folder / "map").write_bytes(b"old" * 1000)
    words = ["--salvage", "--force", "--mapfile", "map"]
    assert run(capfd, *words, "cut.vhdx", "out.img").exit_code == 3
    assert (folder / "map").read_text() == MAPFILE


# -- a source that changes ----------------------------------------------------------------------


def grow(path: Path) -> None:
    with path.open("ab") as file:
        file.write(bytes(MIB))


def touch(path: Path) -> None:
    os.utime(path, ns=(0, 12345))


SOURCE_CHANGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "its size": (grow, "file: was changed while it was read: its size is another one"),
    "its first header": (put(64 * KIB + 8, b"\x99"), "header 1 at file offset 0x10000: was chang"),
    "its second header": (put(128 * KIB + 8, b"\x99"), "header 2 at file offset 0x20000: was cha"),
    "its time": (touch, "file: was changed while it was read: it was written to"),
}


@pytest.mark.parametrize("what", SOURCE_CHANGES)
def test_changed_source_is_refused(
    folder: Path, capfd: Capture, monkeypatch: Patch, what: str
) -> None:
    change, words = SOURCE_CHANGES[what]
    after_flush(monkeypatch, lambda _path: change(folder / "disk.vhdx"))
    outcome = run(capfd, "disk.vhdx", "out.img")
    assert_refused(outcome, 9, f"vhdx2raw: disk.vhdx: {words}", "--allow-changed")
    assert names_in(folder) == ["disk.vhdx"]


@pytest.mark.parametrize("what", SOURCE_CHANGES)
def test_allowed_change_of_the_source_is_a_warning(
    folder: Path, capfd: Capture, monkeypatch: Patch, what: str
) -> None:
    change, words = SOURCE_CHANGES[what]
    after_flush(monkeypatch, lambda _path: change(folder / "disk.vhdx"))
    outcome = run(capfd, "-v", "--json", "--allow-changed", "disk.vhdx", "out.img")
    assert outcome.exit_code == 0
    [warning] = facts_in(outcome)["warnings"]
    assert (warning["filename"], warning["rule"]) == ("disk.vhdx", "R119")
    assert warning["message"].startswith(words)
    assert f"disk.vhdx: warning: {words}" in outcome.err
    assert has_expected_bytes(folder / "out.img", small_disk())


def test_a_source_that_stays_is_no_warning(folder: Path, capfd: Capture) -> None:
    assert facts_of(capfd, "--allow-changed")["warnings"] == []


# -- what is refused ----------------------------------------------------------------------------


def test_strict_refuses_what_else_is_a_warning(folder: Path, capfd: Capture) -> None:
    spec = small_disk()
    spec.headers[0] = HeaderSpec(sequence_number=1, checksum=1)
    spec.write(folder / "disk.vhdx")
    outcome = run(capfd, "--strict", "disk.vhdx", "out.img")
    assert_refused(
        outcome, 5, "disk.vhdx: header 1 at file offset 0x10000: ", "without --strict this is"
    )
    assert names_in(folder) == ["disk.vhdx"]
    assert [warning["rule"] for warning in facts_of(capfd)["warnings"]] == ["R7"]


def test_strict_accepts_a_log_to_replay(folder: Path, capfd: Capture) -> None:
    assert facts_of(capfd, "--strict")["warnings"] == []
    dirty = make_dirty(ImageSpec(SIZE, MIB), small_disk())
    dirty.write(folder / "disk.vhdx")
    facts = facts_of(capfd, "--strict", "--force")
    assert facts["chain"][0]["log"]["state"] == "replayed"
    assert has_expected_bytes(folder / "out.img", dirty)


@pytest.mark.parametrize("limit", ["5M", str(SIZE - 1), "0"])
def test_a_disk_that_is_too_large_is_refused(folder: Path, capfd: Capture, limit: str) -> None:
    outcome = run(capfd, "--max-virtual-size", limit, "disk.vhdx", "out.img")
    assert_refused(outcome, 4, f"disk.vhdx: disk: is larger than is allowed here: found {SIZE} b")
    assert names_in(folder) == ["disk.vhdx"]


@pytest.mark.parametrize("limit", [str(SIZE), "6M", "1T"])
def test_a_disk_that_is_not_too_large_is_converted(
    folder: Path, capfd: Capture, limit: str
) -> None:
    assert run(capfd, "--max-virtual-size", limit, "disk.vhdx", "out.img").exit_code == 0


def test_a_limit_stops_before_any_output_is_replaced(folder: Path, capfd: Capture) -> None:
    (folder / "out.img").write_bytes(b"precious")
    words = ["--force", "--max-virtual-size", "1M", "disk.vhdx", "out.img"]
    assert run(capfd, *words).exit_code == 4
    assert (folder / "out.img").read_bytes() == b"precious"


# -- block devices ------------------------------------------------------------------------------


def test_device_is_overwritten_only_by_force(
    folder: Path, capfd: Capture, devices: Devices
) -> None:
    device = str(devices.make())
    outcome = run(capfd, "disk.vhdx", device)
    assert_refused(outcome, 7, f"{device}: is a block device, whose contents would be lost")
    assert devices.contents().strip(OLD_BYTE) == b""
    words = ["--json", "--force", "--verify", "--hash", "sha256"]
    outcome = run(capfd, *words, "disk.vhdx", device)
    assert outcome.exit_code == 0
    facts = facts_in(outcome)
    assert (facts["verified"], facts["hash"]["digest"]) == (True, SHA256)
    assert "actual-size" not in facts
    is_right = devices.contents()[:SIZE] == raw_of(small_disk())
    assert is_right
    assert devices.contents()[SIZE:].strip(OLD_BYTE) == b""


def test_target_is_zero_writes_no_zeros(folder: Path, capfd: Capture, devices: Devices) -> None:
    """As is seen on a target that is not zero."""
    device = str(devices.make())
    outcome = run(capfd, "--force", "--target-is-zero", "disk.vhdx", device)
    assert outcome.exit_code == 0
    expected = io.BytesIO(OLD_BYTE * SIZE)
    written = raw_of(small_disk())
    for start in range(0, SIZE, 4 * KIB):
        if any(written[start : start + 4 * KIB]):
            expected.seek(start)
            expected.write(written[start : start + 4 * KIB])
    is_right = devices.contents()[:SIZE] == expected.getvalue()
    assert is_right


def test_target_is_zero_does_not_matter_for_a_file(folder: Path, capfd: Capture) -> None:
    assert run(capfd, "--target-is-zero", "disk.vhdx", "out.img").exit_code == 0
    assert has_expected_bytes(folder / "out.img", small_disk())


def test_failed_verify_of_a_device_marks_it_incomplete(
    folder: Path, capfd: Capture, devices: Devices, monkeypatch: Patch
) -> None:
    device = str(devices.make())

    def fail(*_arguments: object, **_options: object) -> None:
        raise OSError(5, os.strerror(5), device)

    monkeypatch.setattr(conversion, "convert_disk", fail)
    outcome = run(capfd, "--force", "disk.vhdx", device)
    assert outcome.exit_code == 8
    assert "overwritten in part" not in outcome.err
    monkeypatch.undo()
    monkeypatch.setattr(import_module("vhdx2raw.operations.writing"), "verify", fail)
    outcome = run(capfd, "--force", "--verify", str(folder / "disk.vhdx"), device)
    assert outcome.exit_code == 8
    assert outcome.err_lines[0] == (
        f"vhdx2raw: {device}: was overwritten in part, and holds no usable disk now"
    )
