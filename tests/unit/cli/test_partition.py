"""--partition: one volume instead of the disk, in every command that reads one."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from tests.support.builder import ImageSpec
from tests.support.cli import run
from tests.support.files import names_in
from tests.support.naive_reader import read_virtual_disk
from tests.support.partitions import PLACES, fragmented_child, gpt_disk, mbr_disk
from tests.support.schemas import validator_of
from vhdx2raw.output.resumable_file import ResumableFileSink
from vhdx2raw.output.sparse_file import SparseFileSink

pytestmark = pytest.mark.slow

Captured = pytest.CaptureFixture[str]
BASE = gpt_disk()
CHILD = fragmented_child(BASE)
NUMBERS = sorted(PLACES)


@pytest.fixture
def images(folder: Path) -> Path:
    """Give the current folder with a child and its parent."""
    BASE.write("base.vhdx")
    CHILD.write("child.vhdx")
    return folder


def expected(number: int, spec: ImageSpec = CHILD) -> bytes:
    first, end = (sector * 512 for sector in PLACES[number])
    return spec.expected_disk(first, end - first)


def json_of(out: str, schema: str) -> Any:  # noqa: ANN401 - that of the command
    facts = json.loads(out)
    validator_of(schema).validate(facts)
    return facts


# -- convert ------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", NUMBERS)
@pytest.mark.parametrize("words", [[], ["-S", "0", "--no-clone"], ["--hash", "md5", "--verify"]])
def test_a_partition_is_converted(
    images: Path, capfd: Captured, number: int, words: list[str]
) -> None:
    outcome = run(capfd, "--json", "--partition", str(number), *words, "child.vhdx", "part.img")
    assert (outcome.exit_code, outcome.err) == (0, "")
    facts = json_of(outcome.out, "convert")
    assert (facts["partition"], facts["virtual-size"]) == (number, len(expected(number)))
    assert Path("part.img").read_bytes() == expected(number)
    if words[0:1] == ["--hash"]:
        assert facts["hash"]["digest"] == hashlib.md5(expected(number)).hexdigest()


def test_zeros_of_a_partition_are_holes(images: Path, capfd: Captured) -> None:
    assert run(capfd, "--partition", "2", "child.vhdx", "part.img").exit_code == 0
    status = Path("part.img").stat()
    assert status.st_blocks * 512 <= status.st_size - 2**20 + 8192


def test_a_partition_goes_to_a_pipe(
    images: Path, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    from vhdx2raw.cli import main  # noqa: PLC0415 - as a program would be run

    assert main(["--partition", "1", "child.vhdx", "-"]) == 0
    assert capfdbinary.readouterr().out == expected(1)


def test_partition_of_each_file_of_a_batch(images: Path, capfd: Captured) -> None:
    words = ("batch", "--all", "--partition", "3", "--output-dir", "raw", "base.vhdx", "child.vhdx")
    assert run(capfd, *words).exit_code == 0
    assert Path("raw/base.img").read_bytes() == expected(3, BASE)
    assert Path("raw/child.img").read_bytes() == expected(3)


def test_report_names_the_partition(images: Path, capfd: Captured) -> None:
    outcome = run(capfd, "-v", "--partition", "1", "child.vhdx", "null:")
    line = "vhdx2raw: child.vhdx (partition 1): 992 KiB differencing disk"
    assert outcome.err.startswith(line), outcome.err


@pytest.mark.parametrize(
    "words", [["--save-state"], ["--state", "s.json"], ["--update", "--force"]]
)
def test_no_state_is_kept_of_a_part(images: Path, capfd: Captured, words: list[str]) -> None:
    outcome = run(capfd, "--partition", "1", *words, "child.vhdx", "part.img")
    assert outcome.exit_code == 2
    text = "--partition takes a part of a disk; --save-state, --state and --update need one version"
    assert text in " ".join(outcome.err.split())
    assert names_in(images) == ["base.vhdx", "child.vhdx"]


def test_a_run_is_resumed_only_for_the_same_partition(
    images: Path, capfd: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both partitions have the same length, so nothing else tells them apart."""
    mbr_disk((0x83, 4096, 8192), (0x83, 2048, 8192)).write("same.vhdx")
    spec = mbr_disk((0x83, 4096, 8192), (0x83, 2048, 8192))
    real = SparseFileSink.write

    def write(sink: SparseFileSink, virtual_offset: int, data: memoryview) -> None:
        if virtual_offset >= 2**21:
            raise OSError(5, "the share is lost")
        real(sink, virtual_offset, data)

    def convert(number: str) -> Any:  # noqa: ANN401 - an Outcome
        words = ("--resume", "--workers", "1", "--no-clone", "--json", "--partition", number)
        return run(capfd, *words, "same.vhdx", "part.img")

    with monkeypatch.context() as patch:
        patch.setattr(ResumableFileSink, "write", write)
        assert convert("1").exit_code == 8
    facts = json_of(convert("2").out, "convert")
    assert (facts["resumed-size"], facts["begun-anew"]) == (
        0,
        "the earlier run had other options",
    )
    assert Path("part.img").read_bytes() == spec.expected_disk(2048 * 512, 8192 * 512)
    Path("part.img").unlink()
    with monkeypatch.context() as patch:
        patch.setattr(ResumableFileSink, "write", write)
        assert convert("1").exit_code == 8
    facts = json_of(convert("1").out, "convert")
    assert (facts["resumed-size"], facts["begun-anew"]) == (2**21, None)
    assert Path("part.img").read_bytes() == spec.expected_disk(4096 * 512, 8192 * 512)


# -- hash, compare, map -------------------------------------------------------------------------


def test_a_partition_is_hashed(images: Path, capfd: Captured) -> None:
    digest = hashlib.sha256(expected(2)).hexdigest()
    outcome = run(capfd, "hash", "--partition", "2", "child.vhdx")
    assert (outcome.exit_code, outcome.out) == (0, f"{digest}  child.vhdx (partition 2)\n")
    facts = json_of(run(capfd, "hash", "--json", "--partition", "2", "child.vhdx").out, "hash")
    (image,) = facts["images"]
    assert (image["digest"], image["partition"]) == (digest, 2)
    assert image["virtual-size"] == len(expected(2))


def test_a_partition_is_compared_with_a_raw_image_of_it(images: Path, capfd: Captured) -> None:
    data = bytearray(expected(2))
    Path("part.img").write_bytes(data)
    words = ("compare", "--json", "--strict", "--partition", "2", "child.vhdx", "part.img")
    outcome = run(capfd, *words)
    assert outcome.exit_code == 0
    facts = json_of(outcome.out, "compare")
    assert [image["partition"] for image in facts["images"]] == [2, None]
    data[700_000] ^= 1
    Path("part.img").write_bytes(data)
    outcome = run(capfd, *words)
    assert outcome.exit_code == 1
    facts = json_of(outcome.out, "compare")
    assert (facts["first-difference"], facts["different-bytes"]) == (700_000, 1)


def test_the_same_partition_of_two_images_is_compared(images: Path, capfd: Captured) -> None:
    """The child differs from its parent only in the zeros, which no byte of partition 1 is."""
    outcome = run(capfd, "compare", "--json", "--partition", "2", "child.vhdx", "base.vhdx")
    facts = json_of(outcome.out, "compare")
    assert [image["partition"] for image in facts["images"]] == [2, 2]
    first, _ = PLACES[2]
    differing = next(
        i for i, (a, b) in enumerate(zip(expected(2), expected(2, BASE), strict=True)) if a != b
    )
    assert (outcome.exit_code, facts["first-difference"]) == (1, differing)
    naive = read_virtual_disk([Path("child.vhdx"), Path("base.vhdx")], first * 512 + differing, 1)
    assert naive == expected(2)[differing : differing + 1]


def test_map_of_a_partition_counts_from_its_start(images: Path, capfd: Captured) -> None:
    outcome = run(capfd, "map", "--json", "--partition", "2", "child.vhdx")
    entries = json_of(outcome.out, "map")
    size = len(expected(2))
    assert (entries[0]["start"], sum(entry["length"] for entry in entries)) == (0, size)
    for entry in entries[:50]:
        if entry["data"]:
            with Path(entry["filename"]).open("rb") as file:
                file.seek(entry["offset"])
                start = entry["start"]
                assert file.read(512) == expected(2)[start : start + 512]
    last = run(
        capfd, "map", "--json", "--partition", "2", "--start-offset", str(size - 512), "child.vhdx"
    )
    (entry,) = json_of(last.out, "map")
    assert (entry["start"], entry["length"]) == (size - 512, 512)


@pytest.mark.parametrize("form", [["--picture"], ["--svg", "-"], []])
def test_a_partition_is_drawn_with_its_own_size(
    images: Path, capfd: Captured, form: list[str]
) -> None:
    outcome = run(capfd, "map", *form, "--partition", "1", "child.vhdx")
    assert outcome.exit_code == 0
    assert "992 KiB" in outcome.out or not form
    assert "8 MiB" not in outcome.out


# -- refusals -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "words",
    ["convert child.vhdx x.img", "hash child.vhdx", "map child.vhdx", "compare child.vhdx x"],
)
def test_an_unknown_partition_is_refused(images: Path, capfd: Captured, words: str) -> None:
    if words.startswith("compare"):
        Path("x").touch()
    outcome = run(capfd, *words.split(), "--partition", "9")
    assert outcome.exit_code == 4
    assert outcome.err_lines == [
        "vhdx2raw: child.vhdx: has no partition 9",
        "vhdx2raw: hint: there are: 1, 2, 3",
    ]
    assert outcome.out == ""
    assert not Path("x.img").exists()


def test_a_refusal_as_json_has_its_reason(images: Path, capfd: Captured) -> None:
    outcome = run(capfd, "map", "--json", "--partition", "9", "child.vhdx")
    error = json_of(outcome.out, "error")["error"]
    assert (error["reason"], error["exit-code"]) == ("partition", 4)


def test_the_way_out_without_partitions_is_named(disk: str, capfd: Captured) -> None:
    outcome = run(capfd, "hash", "--partition", "1", disk)
    assert outcome.exit_code == 4
    assert outcome.err_lines[0] == "vhdx2raw: disk.vhdx: has no partitions"
    assert "without --partition all of the disk is taken" in outcome.err_lines[1]


def test_numbers_begin_at_one(images: Path, capfd: Captured) -> None:
    assert run(capfd, "hash", "--partition", "0", "child.vhdx").exit_code == 2
