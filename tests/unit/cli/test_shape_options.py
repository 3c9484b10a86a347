"""Options for the next program, and the record of a run."""

import hashlib
import json
import os
import platform
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

from tests.support.builder import MIB, Block, BlockState, ImageSpec, child_of, log_sectors
from tests.support.cli import run, small_disk
from tests.support.files import has_expected_bytes, names_in, sha256_of, stored_ranges
from tests.support.schemas import validator_of
from vhdx2raw.cli.console import Answer
from vhdx2raw.cli.record import program, run_facts

pytestmark = pytest.mark.slow

Capture = pytest.CaptureFixture[str]
NOT_KEPT = "-O vhd and --round-size fit none of --save-state, --state and --update"
NO_MAP = "--map-out and --bmap fit neither --update nor --resume"
DIFFER = "--map-out, --bmap and the other outputs must differ"
HOLES = "--holes source fits neither --update nor -S 0"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    small_disk().write(tmp_path / "disk.vhdx")
    return tmp_path


CONTRADICTIONS = [
    (["--holes", "source", "-S", "0"], HOLES),
    (["--holes", "source", "--update"], HOLES),
    (["-O", "vhd", "--round-size", "512"], "-O vhd needs a --round-size of whole MiB"),
    *(
        ([*shape, kept], NOT_KEPT)
        for shape in (["-O", "vhd"], ["--round-size", "1M"])
        for kept in ("--save-state", "--state=s", "--update")
    ),
    *(
        ([option, "m", work], NO_MAP)
        for option in ("--map-out", "--bmap")
        for work in ("--update", "--resume")
    ),
    (["--map-out", "-"], "--map-out and --bmap need the name of a file"),
    (["--bmap", "./out.img"], DIFFER),
    (["--bmap", "m", "--map-out", "m"], DIFFER),
    (["--bmap", "m", "--salvage", "--mapfile", "m"], DIFFER),
]


@pytest.mark.parametrize(("words", "problem"), CONTRADICTIONS, ids=" ".join)
def test_contradiction_is_refused(
    folder: Path, capfd: Capture, words: list[str], problem: str
) -> None:
    outcome = run(capfd, *words, "disk.vhdx", "out.img")
    assert (outcome.exit_code, outcome.out) == (2, "")
    assert outcome.err_lines == [
        f"vhdx2raw: {problem}",
        "vhdx2raw: hint: see vhdx2raw convert --help",
    ]
    assert names_in(folder) == ["disk.vhdx"]


@pytest.mark.parametrize("size", ["0", "1000", "65T"])
def test_round_size_has_its_limits(folder: Path, capfd: Capture, size: str) -> None:
    outcome = run(capfd, "--round-size", size, "disk.vhdx", "out.img")
    assert outcome.exit_code == 2
    assert "give a multiple of 512, at most 64T" in outcome.err_lines[0]


def test_holes_by_the_command_line(folder: Path, capfd: Capture) -> None:
    expected = {
        "zeros": [(4096, 12288), (4 * MIB, 5 * MIB)],
        "source": [(0, MIB), (2 * MIB, 3 * MIB), (4 * MIB, 5 * MIB)],
        "none": [(0, 5 * MIB + 512)],
    }
    for holes, ranges in expected.items():
        assert run(capfd, "--holes", holes, "disk.vhdx", holes).exit_code == 0
        assert has_expected_bytes(folder / holes, small_disk())
        assert stored_ranges(folder / holes) == ranges


# -- the record -----------------------------------------------------------------------------------


def record_of(capfd: Capture, *words: str, exit_code: int = 0) -> dict[str, Any]:
    """Run a conversion with --json, and give the summary, which fits its schema."""
    outcome = run(capfd, "--json", *words)
    assert outcome.exit_code == exit_code, outcome.err
    record: dict[str, Any] = json.loads(outcome.out)
    validator_of("convert").validate(record)
    return record


def seconds_of(time: str) -> float:
    """Give a time in seconds since 1970, which Python reads to the microsecond only."""
    whole, _, fraction = time.removesuffix("+00:00").partition(".")
    parsed = datetime.fromisoformat(whole).replace(tzinfo=timezone.utc).timestamp()
    return parsed + float(f"0.{fraction or 0}")


def test_record_says_who_when_and_where(folder: Path, capfd: Capture) -> None:
    started = datetime.now(timezone.utc).timestamp()
    record = record_of(capfd, "-q", "disk.vhdx", "out.img")
    assert record["program"] == f"vhdx2raw {metadata.version('vhdx2raw')}"
    assert record["command-line"] == ["vhdx2raw", "--json", "-q", "disk.vhdx", "out.img"]
    assert record["host"]["name"] == platform.node()
    assert record["host"]["python"] == platform.python_version()
    assert started - 1 <= seconds_of(record["began"]) <= seconds_of(record["ended"])
    assert seconds_of(record["ended"]) <= datetime.now(timezone.utc).timestamp()
    assert record["image-size"] == (folder / "out.img").stat().st_size


def test_record_without_a_version_is_no_failure(
    folder: Path, capfd: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(name: str) -> str:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "version", fail)
    program.cache_clear()
    record = record_of(capfd, "disk.vhdx", "out.img")
    program.cache_clear()
    assert record["program"] == "vhdx2raw of an unknown version"


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("https://me:secret@host/a/disk.vhdx?sig=secret#x", "https://host/a/disk.vhdx?..."),
        ("--parent=HTTP://host:80/b.vhdx?sig=secret", "--parent=HTTP://host:80/b.vhdx?..."),
        ("https://host/me@home.vhdx", "https://host/me@home.vhdx"),
        ("s3://bucket/disk?.vhdx", "s3://bucket/disk?.vhdx"),
        ("what?.vhdx", "what?.vhdx"),
    ],
)
def test_record_shows_no_secret_of_a_url(
    monkeypatch: pytest.MonkeyPatch, word: str, expected: str
) -> None:
    monkeypatch.setattr(Answer, "arguments", [word])
    assert run_facts("")["command-line"] == ["vhdx2raw", expected]


def test_record_says_what_was_read(folder: Path, capfd: Capture) -> None:
    spec = small_disk()
    bits = range(0, 2048, 2)
    blocks = {1: Block(BlockState.PARTIALLY_PRESENT, sector_bits=bits)}
    child_of(spec, ".\\disk.vhdx", blocks=blocks).write(folder / "child.avhdx")
    os.utime("disk.vhdx", ns=(0, 1_600_000_000_123_456_789))
    record = record_of(
        capfd, "--hash-source", "--hash", "md5", "--hash", "sha1", "child.avhdx", "o"
    )
    names = ["child.avhdx", "./disk.vhdx"]
    for file, name in zip(record["chain"], names, strict=True):
        status = (folder / name).stat()
        assert Path(file["filename"]) == Path(name)
        assert file["size"] == status.st_size
        assert seconds_of(file["modified"]) == pytest.approx(status.st_mtime, abs=1e-5)
        assert seconds_of(file["changed"]) == pytest.approx(status.st_ctime, abs=1e-5)
        data = (folder / name).read_bytes()
        assert file["hashes"] == [
            {"algorithm": name, "digest": hashlib.new(name, data).hexdigest()}
            for name in ("md5", "sha1")
        ]
    assert record["chain"][1]["modified"] == "2020-09-13T12:26:40.123456789+00:00"


def test_file_with_a_log_is_hashed_as_it_is_stored(folder: Path, capfd: Capture) -> None:
    spec = ImageSpec(4 * MIB, MIB, {0: Block()})
    log_sectors(spec, {spec.block_file_offset(0): b"new".ljust(4096, b"!")}).write(
        folder / "d.vhdx"
    )
    outcome = run(capfd, "--hash-source", "d.vhdx", "out.img")
    assert outcome.out == f"{sha256_of(folder / 'd.vhdx')}  d.vhdx\n"


def test_digests_of_output_and_source_can_be_checked(folder: Path, capfd: Capture) -> None:
    outcome = run(capfd, "-O", "vhd", "--hash", "sha256", "--hash-source", "disk.vhdx", "out.vhd")
    assert outcome.out.splitlines() == [
        f"{sha256_of(folder / name)}  {name}" for name in ("out.vhd", "disk.vhdx")
    ]


def test_record_names_the_maps_and_the_format(folder: Path, capfd: Capture) -> None:
    words = ["-O", "vhd", "--map-out", "m", "--bmap", "b", "disk.vhdx", "out.vhd"]
    record = record_of(capfd, *words)
    assert (record["format"], record["map"], record["bmap"]) == ("vhd", "m", "b")
    assert record["image-size"] == 6 * MIB + 512 == (folder / "out.vhd").stat().st_size
    assert record["virtual-size"] == 5 * MIB + 512


def test_record_of_a_loss(folder: Path, capfd: Capture) -> None:
    os.truncate("disk.vhdx", (folder / "disk.vhdx").stat().st_size - MIB // 2)
    record = record_of(capfd, "--salvage", "--hash-source", "disk.vhdx", "out.img", exit_code=3)
    assert record["lost-size"] == sum(lost["length"] for lost in record["lost-ranges"]) > 0
    assert record["damage"]
    expected = {"algorithm": "sha256", "digest": sha256_of(folder / "disk.vhdx")}
    assert record["chain"][0]["hashes"] == [expected]


# -- batches --------------------------------------------------------------------------------------


def batch(capfd: Capture, *words: str) -> list[dict[str, Any]]:
    """Run a batch; give its lines, which fit their schema."""
    outcome = run(capfd, "batch", "--json", *words)
    assert outcome.exit_code == 0, outcome.err
    lines = [json.loads(line) for line in outcome.out.splitlines()]
    for line in lines:
        validator_of("batch").validate(line)
    return lines


def test_lines_of_a_batch_are_records_as_well(folder: Path, capfd: Capture) -> None:
    [line] = batch(capfd, "--hash-source", "--output-dir", "raw", "disk.vhdx")
    assert line["chain"][0]["hashes"][0]["digest"] == sha256_of(folder / "disk.vhdx")
    assert line["command-line"][1] == "batch"


SHAPES: dict[str, tuple[list[str], str, int]] = {
    "rounded": (["--round-size", "2M"], "disk.img", 6 * MIB),
    "vhd": (["-O", "vhd"], "disk.vhd", 6 * MIB + 512),
}


@pytest.mark.parametrize("digest", [[], ["--hash", "md5"]], ids=["without", "with digest"])
@pytest.mark.parametrize("shape", SHAPES)
def test_batch_of_a_shape_is_not_done_again(
    folder: Path, capfd: Capture, shape: str, digest: list[str]
) -> None:
    words, name, size = SHAPES[shape]
    words = [*words, *digest, "--output-dir", "raw", "--skip-done", "disk.vhdx"]
    [line] = batch(capfd, *words)
    assert (line["status"], line["image-size"]) == ("converted", size)
    assert names_in(folder / "raw") == [name]
    before = (folder / "raw" / name).stat()
    assert before.st_size == size
    [again] = batch(capfd, *words)
    assert again["status"] == ("converted" if digest else "skipped")
    assert again.get("hash") == line.get("hash")
    assert (folder / "raw" / name).stat().st_mtime_ns == before.st_mtime_ns


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("place", [5 * MIB + 512, -1])
def test_changed_rest_is_not_this_disk(
    folder: Path, capfd: Capture, shape: str, place: int
) -> None:
    words, name, _ = SHAPES[shape]
    batch(capfd, *words, "--output-dir", "raw", "disk.vhdx")
    with (folder / "raw" / name).open("r+b") as file:
        file.seek(place, os.SEEK_SET if place >= 0 else os.SEEK_END)
        file.write(b"x")
    words = [*words, "--hash", "md5", "--skip-done", "--output-dir", "raw", "disk.vhdx"]
    outcome = run(capfd, "batch", *words)
    assert outcome.exit_code == 7
    assert "exists already, and is not this disk" in outcome.err


def test_another_shape_is_not_this_disk(folder: Path, capfd: Capture) -> None:
    batch(capfd, "--output-dir", "raw", "disk.vhdx")
    words = ["--round-size", "1M", "--skip-done", "--output-dir", "raw", "disk.vhdx"]
    outcome = run(capfd, "batch", *words)
    assert outcome.exit_code == 7
    assert f"has {5 * MIB + 512} bytes, and the disk {6 * MIB}" in outcome.err


def test_a_list_gives_each_disk_its_shape(folder: Path, capfd: Capture) -> None:
    options = {"output-format": "vhd", "holes": "source", "map-out": "m", "round-size": 4 * MIB}
    small_disk().write(folder / "other.vhdx")
    lines = [{"source": "disk.vhdx", "options": options}, {"source": "other.vhdx"}]
    (folder / "list").write_text("".join(json.dumps(line) + "\n" for line in lines))
    batch(capfd, "--all", "--from-list", "list", "--output-dir", "raw")
    assert names_in(folder / "raw") == ["disk.vhd", "other.img"]
    assert (folder / "raw/disk.vhd").stat().st_size == 8 * MIB + 512
    data = [entry for entry in json.loads((folder / "m").read_text()) if entry["data"]]
    assert [entry["start"] for entry in data] == [0, 2 * MIB, 4 * MIB, 8 * MIB]


def test_list_with_an_unknown_word_is_refused(folder: Path, capfd: Capture) -> None:
    line = {"source": "disk.vhdx", "options": {"holes": "all"}}
    (folder / "list").write_text(json.dumps(line))
    outcome = run(capfd, "batch", "--from-list", "list", "--output-dir", "raw")
    assert outcome.exit_code == 2
    assert 'the option holes cannot be "all"' in outcome.err


@pytest.mark.parametrize("option", ["--map-out", "--bmap"])
def test_one_map_fits_one_disk(folder: Path, capfd: Capture, option: str) -> None:
    outcome = run(capfd, "batch", option, "m", "--output-dir", "raw", "disk.vhdx")
    assert outcome.exit_code == 2
    assert f"{option} fits one SRC; in --from-list each disk can have its own" in outcome.err
