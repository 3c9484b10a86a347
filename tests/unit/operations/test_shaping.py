"""Outputs that are more than the disk: rounded up, and fixed VHDs."""

import hashlib
import os
import struct
from pathlib import Path
from typing import Any, Literal

import pytest

from tests.support.builder import GIB, MIB, TIB, Block, BlockState, ImageSpec, child_of
from tests.support.cli import SCRIPT, run, run_program, small_disk
from tests.support.contents import LINUX, gpt
from tests.support.devices import OLD_BYTE, loop_devices
from tests.support.files import has_expected_bytes, names_in, sha256_of, stored_ranges
from tests.support.partitions import disk_with, mbr_disk
from tests.support.peers import needs_shared_memory, run_peer
from tests.support.real_images import REAL_IMAGES, needs_real_images, unpack_real_image
from vhdx2raw import NullSink, SparseFileSink, convert
from vhdx2raw.disk.chain import OpenOptions
from vhdx2raw.disk.virtual_disk import open_disk
from vhdx2raw.errors import OutputError, UnsupportedImageError
from vhdx2raw.operations import compare, writing
from vhdx2raw.output.shape import Shape
from vhdx2raw.output.vhd import geometry_of
from vhdx2raw.source.file import FileSource

Capture = pytest.CaptureFixture[str]
Format = Literal["raw", "vhd"]
FOOTER = 512
SIZE = 5 * MIB + 512


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give the current folder, with a disk whose size is no round one, and a child of it."""
    monkeypatch.chdir(tmp_path)
    spec = small_disk()
    spec.write(tmp_path / "disk.vhdx")
    bits = range(0, 2048, 3)
    blocks = {1: Block(), 2: Block(BlockState.PARTIALLY_PRESENT, sector_bits=bits)}
    child_of(spec, ".\\disk.vhdx", blocks=blocks).write(tmp_path / "child.avhdx")
    return tmp_path


def expected_of(name: str) -> bytes:
    spec = small_disk()
    if name == "child.avhdx":
        bits = range(0, 2048, 3)
        blocks = {1: Block(), 2: Block(BlockState.PARTIALLY_PRESENT, sector_bits=bits)}
        spec = child_of(spec, ".\\disk.vhdx", blocks=blocks)
    return spec.expected_disk(0, SIZE)


def assert_is(path: Path, disk: bytes, end: int, *, has_footer: bool) -> None:
    """Hold an output against a disk and the zeros after it."""
    data = path.read_bytes()
    assert len(data) == end + (FOOTER if has_footer else 0)
    is_right = data[:end] == disk.ljust(end, b"\0")
    assert is_right
    if has_footer:
        assert data[end : end + 8] == b"conectix"


# -- sizes ----------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("name", ["disk.vhdx", "child.avhdx"])
@pytest.mark.parametrize(
    ("unit", "end"),
    [(512, SIZE), (4096, 5 * MIB + 4096), (MIB, 6 * MIB), (128 * MIB, 128 * MIB)],
)
def test_image_ends_at_a_round_size(place: Path, name: str, unit: int, end: int) -> None:
    result = convert(name, "out.img", round_size=unit, verify=True)
    assert (place / "out.img").stat().st_size == end
    assert result.added_bytes == end - SIZE
    data = (place / "out.img").read_bytes()[: 16 * MIB]
    is_right = data.rstrip(b"\0") == expected_of(name).rstrip(b"\0")
    assert is_right
    assert all(stop <= 5 * MIB + 4096 for _, stop in stored_ranges(place / "out.img"))


def test_a_round_size_is_left_as_it_is(place: Path) -> None:
    ImageSpec(4 * MIB, MIB, {0: Block()}).write(place / "even.vhdx")
    result = convert("even.vhdx", "out.img", round_size=2 * MIB)
    assert (result.added_bytes, (place / "out.img").stat().st_size) == (0, 4 * MIB)


@pytest.mark.parametrize("options", [{"holes": "none"}, {"sparse_size": 0}])
def test_without_holes_all_is_allocated(place: Path, options: dict[str, Any]) -> None:
    convert("disk.vhdx", "out.img", round_size=4 * MIB, **options)
    assert stored_ranges(place / "out.img") == [(0, 8 * MIB)]
    assert_is(place / "out.img", expected_of("disk.vhdx"), 8 * MIB, has_footer=False)


@pytest.mark.slow
@pytest.mark.parametrize("words", [["--round-size", "4M"], ["-O", "vhd"]])
def test_a_stream_has_the_same_bytes(place: Path, words: list[str]) -> None:
    with (place / "stream").open("wb") as stream:
        outcome = run_program(*words, "child.avhdx", "-", command=SCRIPT, stdout=stream)
    assert (outcome.exit_code, outcome.err) == (0, "")
    assert run_program(*words, "child.avhdx", "file").exit_code == 0
    is_same = (place / "stream").read_bytes() == (place / "file").read_bytes()
    assert is_same


@pytest.mark.slow
@pytest.mark.parametrize("output_format", ["raw", "vhd"])
def test_digests_are_those_of_the_file(place: Path, output_format: Format) -> None:
    """So that sha256sum can check it, with all that was added."""
    options: dict[str, Any] = {"output_format": output_format, "round_size": 4 * MIB}
    result = convert("disk.vhdx", "out.img", hash_algorithm=["sha256", "md5"], **options)
    data = (place / "out.img").read_bytes()
    expected = {name: hashlib.new(name, data).hexdigest() for name in ("sha256", "md5")}
    assert result.digests == expected
    assert (
        convert("disk.vhdx", NullSink(), hash_algorithm="md5", **options).digest == expected["md5"]
    )


@pytest.mark.parametrize("output_format", ["raw", "vhd"])
def test_a_sink_of_the_caller_gets_all(place: Path, output_format: Format) -> None:
    sink = SparseFileSink("out.img", 8 * MIB)
    convert("disk.vhdx", sink, output_format=output_format, round_size=8 * MIB)
    has_footer = output_format == "vhd"
    assert_is(place / "out.img", expected_of("disk.vhdx"), 8 * MIB, has_footer=has_footer)


@pytest.mark.parametrize("output_format", ["raw", "vhd"])
def test_resumed_output_is_the_same(
    place: Path, output_format: Format, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An earlier run may have had another shape: what it keeps is the disk."""
    options: dict[str, Any] = {"output_format": output_format, "round_size": 4 * MIB}

    def fail(*_: object, **__: object) -> None:
        raise OSError(5, "Input/output error", "out.img")

    with monkeypatch.context() as patched:
        patched.setattr(Shape, "write_rest", fail)
        with pytest.raises(OSError, match="Input/output error"):
            convert("disk.vhdx", "out.img", resume=True, round_size=16 * MIB)
    result = convert("disk.vhdx", "out.img", resume=True, hash_algorithm="sha1", **options)
    assert result.resumed_bytes == SIZE
    has_footer = output_format == "vhd"
    assert_is(place / "out.img", expected_of("disk.vhdx"), 8 * MIB, has_footer=has_footer)
    assert result.digest == hashlib.sha1((place / "out.img").read_bytes()).hexdigest()


SPOILT = {"zeros": (7 * MIB, 1), "footer": (8 * MIB + 40, 1), "end": (8 * MIB + FOOTER, 1)}


@pytest.mark.parametrize("where", SPOILT)
def test_verify_sees_what_was_added(
    place: Path, where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    offset, _ = SPOILT[where]
    verify = compare.verify

    def spoil(disk: Any, path: str, **keywords: Any) -> None:  # noqa: ANN401
        with Path(path).open("r+b") as file:
            file.seek(offset)
            file.write(b"spoilt")
        verify(disk, path, **keywords)

    monkeypatch.setattr(writing, "verify", spoil)
    problem = {
        "zeros": r"is not what was written \(bytes that differ: 6, the first at 0x700000\)",
        "footer": r"is not what was written \(its last 512 bytes differ\)",
        "end": f"is {8 * MIB + FOOTER + 6} bytes long, and not {8 * MIB + FOOTER}",
    }[where]
    with pytest.raises(OutputError, match=problem):
        convert("disk.vhdx", "out.img", output_format="vhd", round_size=8 * MIB, verify=True)
    assert names_in(place) == ["child.avhdx", "disk.vhdx"]


@pytest.mark.slow
def test_the_archive_for_google_holds_the_disk(place: Path) -> None:
    """In the old format of GNU, the one member of whole GiB, and with its holes."""
    convert("child.avhdx", "disk.raw", round_size=GIB)
    expected = sha256_of(place / "disk.raw")
    run_peer("tar", "--format=oldgnu", "-Sczf", "disk.raw.tar.gz", "disk.raw")
    assert (place / "disk.raw.tar.gz").stat().st_size < 2 * MIB
    (place / "disk.raw").unlink()
    run_peer("tar", "-xSzf", "disk.raw.tar.gz")
    assert ((place / "disk.raw").stat().st_size, sha256_of(place / "disk.raw")) == (GIB, expected)
    with (place / "disk.raw").open("rb") as file:
        is_right = file.read(SIZE) == expected_of("child.avhdx")
    assert is_right


# -- a GPT ----------------------------------------------------------------------------------------


@pytest.fixture
def gpt_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give the current folder, with a disk that has a GPT."""
    monkeypatch.chdir(tmp_path)
    disk_with(gpt((LINUX, 2048, 8191, "root"), size=8 * MIB)).write(tmp_path / "gpt.vhdx")
    return tmp_path


def test_misplaced_backup_of_a_gpt_is_a_warning(gpt_place: Path, capfd: Capture) -> None:
    """Not one of the source, so that it is none for --strict to refuse."""
    outcome = run(capfd, "--strict", "--round-size", "16M", "gpt.vhdx", "out.img")
    assert outcome.exit_code == 0
    assert outcome.err == (
        "vhdx2raw: gpt.vhdx: warning: GPT: ends 8388608 bytes before the image, and so does the"
        " backup of its GPT: `sgdisk -e IMAGE` moves that to the end\n"
    )
    assert (gpt_place / "out.img").stat().st_size == 16 * MIB


@pytest.mark.slow
def test_the_command_of_the_warning_moves_it(gpt_place: Path) -> None:
    convert("gpt.vhdx", "out.img", round_size=16 * MIB)
    assert "self-pointer indicates that it doesn't reside" in run_peer("sgdisk", "-v", "out.img")
    run_peer("sgdisk", "-e", "out.img")
    assert "No problems found" in run_peer("sgdisk", "-v", "out.img")
    assert (gpt_place / "out.img").read_bytes()[-512:-504] == b"EFI PART"


@pytest.mark.parametrize("unit", [8 * MIB, None])
def test_backup_at_the_end_is_no_warning(gpt_place: Path, unit: int | None) -> None:
    assert convert(gpt_place / "gpt.vhdx", NullSink(), round_size=unit).warnings == ()


def test_mbr_has_no_backup(tmp_path: Path) -> None:
    mbr_disk((0x83, 64, 2048)).write(tmp_path / "mbr.vhdx")
    assert convert(tmp_path / "mbr.vhdx", NullSink(), round_size=16 * MIB).warnings == ()


# -- VHD ------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("name", ["disk.vhdx", "child.avhdx"])
def test_qemu_reads_the_vhd(place: Path, name: str) -> None:
    """With its current size, and not that of its geometry, which is smaller."""
    convert(name, "out.vhd", output_format="vhd", verify=True)
    assert_is(place / "out.vhd", expected_of(name), 6 * MIB, has_footer=True)
    facts = run_peer("qemu-img", "info", "-f", "vpc", "out.vhd")
    assert f"({6 * MIB} bytes)" in facts
    (place / "expected").write_bytes(expected_of(name).ljust(6 * MIB, b"\0"))
    run_peer("qemu-img", "compare", "-f", "vpc", "-F", "raw", "out.vhd", "expected")
    forced = "driver=vpc,force_size_calc=current_size,file.filename=out.vhd"
    run_peer("qemu-img", "compare", "--image-opts", forced, "driver=raw,file.filename=expected")


def test_footer_says_what_the_format_wants(place: Path) -> None:
    spec = small_disk()
    convert("disk.vhdx", "out.vhd", output_format="vhd")
    footer = (place / "out.vhd").read_bytes()[-FOOTER:]
    features, version, data_offset, created = struct.unpack_from(">IIQI", footer, 8)
    assert (features, version, data_offset) == (2, 0x10000, 2**64 - 1)
    assert created == int((place / "disk.vhdx").stat().st_mtime) - 946684800
    assert footer[28:32] == b"win "
    assert struct.unpack_from(">QQ", footer, 40) == (6 * MIB, 6 * MIB)
    assert struct.unpack_from(">I", footer, 60) == (2,)
    sums = sum(footer[:64] + footer[68:])
    assert struct.unpack_from(">I", footer, 64) == (~sums & 0xFFFFFFFF,)
    assert footer[68:84] == spec.data_write_guid.bytes
    assert not any(footer[84:])


def test_the_same_disk_gives_the_same_vhd(place: Path) -> None:
    for name in ("a", "b"):
        convert("disk.vhdx", name, output_format="vhd")
    is_same = (place / "a").read_bytes() == (place / "b").read_bytes()
    assert is_same


@pytest.mark.parametrize("size", ["1M", "3M", "100M", "504M", "1G", "3G", "40G", "127G", "2000G"])
def test_geometry_is_that_of_qemu(place: Path, size: str) -> None:
    run_peer("qemu-img", "create", "-q", "-f", "vpc", "-o", "subformat=fixed", "out.vhd", size)
    with (place / "out.vhd").open("rb") as file:
        file.seek(-FOOTER, os.SEEK_END)
        footer = file.read()
    current, cylinders, heads, sectors = struct.unpack_from(">QHBB", footer, 48)
    assert geometry_of(current) == (cylinders, heads, sectors)


def test_our_own_refusal_knows_the_vhd(place: Path) -> None:
    convert("disk.vhdx", "out.vhd", output_format="vhd")
    with pytest.raises(UnsupportedImageError, match="is a legacy VHD image"):
        convert("out.vhd", "again.img")


@needs_real_images
@pytest.mark.parametrize("name", ["dissect-fixed.vhdx.gz", "dissect-dynamic.vhdx.gz"])
def test_a_real_disk_as_vhd(place: Path, name: str) -> None:
    size, expected = REAL_IMAGES[name]
    convert(unpack_real_image(name, place), "out.vhd", output_format="vhd")
    run_peer("qemu-img", "convert", "-f", "vpc", "-O", "raw", "out.vhd", "out.img")
    data = (place / "out.img").read_bytes()
    assert (len(data), hashlib.sha256(data).hexdigest()) == (size, expected)


def test_sectors_of_4_kib_are_refused(place: Path, capfd: Capture) -> None:
    ImageSpec(4 * MIB, MIB, {0: Block()}, logical_sector_size=4096).write(place / "4k.vhdx")
    outcome = run(capfd, "-O", "vhd", "4k.vhdx", "out.vhd")
    assert (outcome.exit_code, names_in(place)) == (7, ["4k.vhdx", "child.avhdx", "disk.vhdx"])
    problem = "has sectors of 4096 bytes, and a VHD can only have sectors of 512"
    assert outcome.err_lines == [
        f"vhdx2raw: 4k.vhdx: {problem}",
        "vhdx2raw: hint: write it raw; --output-format raw does",
    ]


def test_more_than_2040_gib_is_refused(place: Path) -> None:
    ImageSpec(2040 * GIB + 512, 256 * MIB).write(place / "large.vhdx")
    with pytest.raises(OutputError, match=r"a VHD can hold at most 2190433320960 \(2040 GiB\)"):
        convert("large.vhdx", NullSink(), output_format="vhd")
    ImageSpec(2040 * GIB, 256 * MIB).write(place / "large.vhdx")
    folder = needs_shared_memory()
    out = folder / f"vhdx2raw-{os.getpid()}.vhd"
    try:
        convert("large.vhdx", out, output_format="vhd")
        assert f"({2040 * GIB} bytes)" in run_peer("qemu-img", "info", "-f", "vpc", out)
    finally:
        out.unlink(missing_ok=True)


# -- what does not fit ----------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{"round_size": 4 * MIB}, {"output_format": "vhd"}])
def test_block_device_is_refused(place: Path, options: dict[str, Any]) -> None:
    with loop_devices(place) as devices:
        device = devices.make()
        with pytest.raises(OutputError, match="is a block device, which is not made longer"):
            convert("disk.vhdx", device, force=True, **options)
        assert not devices.contents().strip(OLD_BYTE)


@pytest.mark.parametrize("shape", [{"round_size": MIB}, {"output_format": "vhd"}])
@pytest.mark.parametrize("kept", [{"update": True}, {"state": "state"}])
def test_what_is_changed_in_place_is_the_disk_alone(
    place: Path, shape: dict[str, Any], kept: dict[str, Any]
) -> None:
    with pytest.raises(ValueError, match="what is changed in place later is the disk alone"):
        convert("disk.vhdx", "out.img", **shape, **kept)


@pytest.mark.parametrize(
    ("size", "output_format"),
    [(0, "raw"), (513, "raw"), (-512, "raw"), (64 * TIB + 512, "raw"), (MIB + 512, "vhd")],
)
def test_impossible_round_size_is_refused(place: Path, size: int, output_format: Format) -> None:
    with pytest.raises(ValueError, match="round_size must be a multiple of"):
        convert("disk.vhdx", "out.img", round_size=size, output_format=output_format)


def test_unknown_format_is_refused(place: Path) -> None:
    with pytest.raises(ValueError, match="output_format must be one of raw, vhd, not 'vmdk'"):
        convert("disk.vhdx", "out.img", output_format="vmdk")  # type: ignore[arg-type]


def test_size_that_no_file_can_have_leaves_nothing(place: Path, capfd: Capture) -> None:
    outcome = run(capfd, "--round-size", "64T", "disk.vhdx", "out.img")
    assert outcome.exit_code in (0, 8)
    if outcome.exit_code:
        assert "this file system cannot hold a file of this length" in outcome.err
        assert names_in(place) == ["child.avhdx", "disk.vhdx"]


# -- the digests of the source --------------------------------------------------------------------


def test_files_of_a_chain_are_hashed_as_they_are(place: Path) -> None:
    result = convert("child.avhdx", "out.img", hash_source=True, verify=True)
    expected = [
        {"sha256": hashlib.sha256((place / name).read_bytes()).hexdigest()}
        for name in ("child.avhdx", "disk.vhdx")
    ]
    assert list(result.source_digests) == expected


def test_progress_counts_the_files(place: Path) -> None:
    steps: list[tuple[int, int]] = []
    options: dict[str, Any] = {"hash_algorithm": "md5", "hash_source": True, "verify": True}
    convert("disk.vhdx", "out.img", progress=lambda *step: steps.append(step), **options)
    assert steps == sorted(steps)
    done, total = steps[-1]
    assert done == total > (place / "disk.vhdx").stat().st_size


@pytest.mark.parametrize("salvage", [False, True])
def test_file_that_cannot_be_read_as_a_whole(
    place: Path, monkeypatch: pytest.MonkeyPatch, *, salvage: bool
) -> None:
    """Here no block needs its last MiB; a file that is salvaged goes without a digest."""
    fill, size = FileSource._fill, (place / "disk.vhdx").stat().st_size
    os.truncate("disk.vhdx", size + MIB)

    def fail(self: FileSource, file_offset: int, buffer: memoryview) -> int:
        if self.name == "disk.vhdx" and file_offset == size:
            raise OSError(5, "Input/output error", self.name)
        return fill(self, file_offset, buffer)

    monkeypatch.setattr(FileSource, "_fill", fail)
    with open_disk("disk.vhdx", OpenOptions(salvage=salvage)) as disk:
        if salvage:
            assert convert(disk, "out.img", hash_source=True).source_digests == ({},)
            assert has_expected_bytes(place / "out.img", small_disk())
        else:
            with pytest.raises(OSError, match="Input/output error"):
                convert(disk, "out.img", hash_source=True)
            assert names_in(place) == ["child.avhdx", "disk.vhdx"]
