"""Maps of an output: what qemu-img, the kernel and bmaptool say of the same file."""

import errno
import hashlib
import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from tests.support.builder import MIB, Block, BlockState, ImageSpec, child_of
from tests.support.cli import SCRIPT, run, run_program, small_disk
from tests.support.devices import loop_devices
from tests.support.files import has_expected_bytes, names_in, sha256_of, stored_ranges
from tests.support.peers import needs_program, run_peer
from tests.support.real_images import REAL_IMAGES, needs_real_images, unpack_real_image
from vhdx2raw import NullSink, convert, host
from vhdx2raw.errors import OutputError

Capture = pytest.CaptureFixture[str]
BLOCK = 4096
HOLES = ["zeros", "source", "none"]
SHAPES: dict[str, dict[str, Any]] = {
    "as it is": {},
    "rounded": {"round_size": 4 * MIB},
    "vhd": {"output_format": "vhd"},
}


def write_chain(folder: Path) -> Path:
    """Write a chain of two whose maps have every kind of range; give the child."""
    parent = ImageSpec(
        6 * MIB + 512,
        MIB,
        {0: Block(), 1: Block(content=0), 3: Block(content={65536: b"x"}), 6: Block(content=0)},
        tag="base",
    )
    blocks = {
        0: Block(BlockState.PARTIALLY_PRESENT, sector_bits=range(0, 2048, 64), content=0),
        2: Block(BlockState.PARTIALLY_PRESENT, sector_bits=[8, *range(1024, 1032), 2047]),
        4: Block(BlockState.ZERO),
        5: Block(),
    }
    child = child_of(parent, ".\\base.vhdx", blocks=blocks)
    parent.write(folder / "base.vhdx")
    child.write(folder / "child.avhdx")
    return folder / "child.avhdx"


def convert_with_maps(source: Path, **options: Any) -> tuple[Path, list[dict[str, Any]]]:  # noqa: ANN401
    """Convert, with both maps; give the output and the first map."""
    folder = source.parent
    convert(source, folder / "out.img", map_out=folder / "map.json", bmap=folder / "b", **options)
    return folder / "out.img", json.loads((folder / "map.json").read_text("ascii"))


def data_in(entries: list[dict[str, Any]]) -> list[tuple[int, int]]:
    """Give (start, end) of the data of a map, in whole pages of a file, those that touch as one."""
    pages: list[tuple[int, int]] = []
    for entry in entries:
        if not entry["data"]:
            continue
        start = entry["start"] // BLOCK * BLOCK
        end = -(-(entry["start"] + entry["length"]) // BLOCK) * BLOCK
        if pages and pages[-1][1] >= start:
            start = pages.pop()[0]
        pages.append((start, end))
    return pages


@pytest.mark.slow
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("holes", HOLES)
def test_map_is_that_of_the_kernel(tmp_path: Path, holes: str, shape: str) -> None:
    out, entries = convert_with_maps(write_chain(tmp_path), holes=holes, **SHAPES[shape])
    size = out.stat().st_size
    rounded = [(start, -(-end // BLOCK) * BLOCK) for start, end in stored_ranges(out)]
    assert data_in(entries) == rounded
    done = 0
    for entry in entries:
        assert entry["start"] == entry["offset"] == done
        assert entry["zero"] is not entry["data"]
        done += entry["length"]
    assert done == size
    kinds = [entry["data"] for entry in entries]
    assert all(kinds[index] != kinds[index + 1] for index in range(len(kinds) - 1))


@pytest.mark.parametrize("holes", HOLES)
def test_map_is_that_of_qemu(tmp_path: Path, holes: str) -> None:
    """Where all lies in whole pages, even the text is the same but for spaces."""
    spec = ImageSpec(
        5 * MIB, MIB, {0: Block(content={8192: b"x"}), 2: Block(content=0), 3: Block()}
    )
    spec.write(tmp_path / "disk.vhdx")
    out, entries = convert_with_maps(tmp_path / "disk.vhdx", holes=holes)
    theirs = json.loads(run_peer("qemu-img", "map", "--output=json", "-f", "raw", out))
    # Newer versions have a key more.
    assert entries == [{key: entry[key] for key in entries[0]} for entry in theirs]


@pytest.mark.parametrize("sector_bits", [range(0, 2048, 2), [0, 7, 8, 9, 2047]])
def test_map_of_sectors_is_exact(tmp_path: Path, sector_bits: list[int] | range) -> None:
    """A file system stores whole pages; the map says what was written."""
    parent = ImageSpec(MIB, MIB, tag="base")
    block = Block(BlockState.PARTIALLY_PRESENT, sector_bits=sector_bits)
    parent.write(tmp_path / "base.vhdx")
    child_of(parent, ".\\base.vhdx", blocks={0: block}).write(tmp_path / "child.avhdx")
    _, entries = convert_with_maps(tmp_path / "child.avhdx", holes="source")
    sectors = {
        sector
        for entry in entries
        if entry["data"]
        for sector in range(entry["start"] // 512, (entry["start"] + entry["length"]) // 512)
    }
    assert sectors == set(sector_bits)


def test_coldsnap_could_take_it(tmp_path: Path) -> None:
    """It wants ranges without gaps from 0 to the size of the file, and looks at three keys."""
    out, entries = convert_with_maps(write_chain(tmp_path), holes="source")
    covered = 0
    for entry in entries:
        assert (type(entry["start"]), type(entry["length"]), type(entry["data"])) == (
            int,
            int,
            bool,
        )
        assert entry["start"] == covered
        covered += entry["length"]
    assert covered == out.stat().st_size


# -- bmaptool -------------------------------------------------------------------------------------


def assert_bmap_describes(bmap: Path, image: bytes, data: list[tuple[int, int]]) -> None:
    """Hold a block map against an image whose data lies in these whole pages."""
    text = bmap.read_bytes()
    root = ET.fromstring(text)
    assert root.attrib == {"version": "2.0"}

    def number(name: str) -> int:
        return int(root.findtext(name, ""))

    assert number("ImageSize") == len(image)
    assert number("BlockSize") == BLOCK
    assert number("BlocksCount") == -(-len(image) // BLOCK)
    checksum = root.findtext("BmapFileChecksum", "").strip()
    assert hashlib.sha256(text.replace(checksum.encode(), b"0" * 64)).hexdigest() == checksum
    ranges = []
    for element in root.iter("Range"):
        first, _, last = (element.text or "").strip().partition("-")
        start, end = int(first) * BLOCK, (int(last or first) + 1) * BLOCK
        assert element.attrib == {"chksum": hashlib.sha256(image[start:end]).hexdigest()}
        ranges.append((start, end))
    assert ranges == data
    assert number("MappedBlocksCount") == sum(end - start for start, end in data) // BLOCK


@pytest.mark.slow
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("holes", HOLES)
def test_block_map_is_right(tmp_path: Path, holes: str, shape: str) -> None:
    out, entries = convert_with_maps(write_chain(tmp_path), holes=holes, **SHAPES[shape])
    assert_bmap_describes(tmp_path / "b", out.read_bytes(), data_in(entries))


def test_block_map_of_an_empty_disk_has_no_range(tmp_path: Path) -> None:
    ImageSpec(3 * MIB, MIB).write(tmp_path / "disk.vhdx")
    out, entries = convert_with_maps(tmp_path / "disk.vhdx")
    assert [entry["length"] for entry in entries] == [3 * MIB]
    assert_bmap_describes(tmp_path / "b", out.read_bytes(), [])


def copy_by_bmap(image: Path | str, bmap: Path, target: Path) -> subprocess.CompletedProcess[str]:
    program = needs_program("bmaptool")
    command = [program, "copy", "--bmap", str(bmap), str(image), str(target)]
    return subprocess.run(command, check=False, capture_output=True, text=True)


@pytest.mark.slow
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("holes", HOLES)
def test_bmaptool_writes_what_is_mapped(tmp_path: Path, holes: str, shape: str) -> None:
    out, _ = convert_with_maps(write_chain(tmp_path), holes=holes, **SHAPES[shape])
    done = copy_by_bmap(out, tmp_path / "b", tmp_path / "target")
    assert done.returncode == 0, done.stderr
    is_right = (tmp_path / "target").read_bytes() == out.read_bytes()
    assert is_right


def test_bmaptool_notices_a_changed_image(tmp_path: Path) -> None:
    out, _ = convert_with_maps(write_chain(tmp_path))
    with out.open("r+b") as file:
        file.seek(5 * MIB + 4000)
        file.write(b"changed")
    done = copy_by_bmap(out, tmp_path / "b", tmp_path / "target")
    assert done.returncode
    assert "checksum mismatch for blocks range" in done.stderr


@needs_real_images
@pytest.mark.parametrize("name", ["dissect-fixed.vhdx.gz", "dissect-dynamic.vhdx.gz"])
def test_bmaptool_copies_a_real_disk(tmp_path: Path, name: str) -> None:
    out, _ = convert_with_maps(unpack_real_image(name, tmp_path), holes="source")
    done = copy_by_bmap(out, tmp_path / "b", tmp_path / "target")
    assert done.returncode == 0, done.stderr
    assert (out.stat().st_size, sha256_of(tmp_path / "target")) == REAL_IMAGES[name]


@pytest.mark.slow
@pytest.mark.parametrize("holes", HOLES)
def test_bmaptool_takes_a_compressed_stream(tmp_path: Path, holes: str) -> None:
    """Zeros that a stream has to have are in no map of it."""
    source = write_chain(tmp_path)
    words = ["--holes", holes, "--map-out", "map", "--bmap", "b", source.name, "-"]
    with (tmp_path / "out.img").open("wb") as stream:
        outcome = run_program(*words, command=SCRIPT, stdout=stream, cwd=tmp_path)
    assert (outcome.exit_code, outcome.err) == (0, "")
    streamed = json.loads((tmp_path / "map").read_text())
    subprocess.run(["gzip", tmp_path / "out.img"], check=True)
    out, entries = convert_with_maps(source, holes=holes, force=True)
    assert streamed == entries
    done = copy_by_bmap(tmp_path / "out.img.gz", tmp_path / "b", tmp_path / "target")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "target").read_bytes() == out.read_bytes()


# -- with other options ---------------------------------------------------------------------------


@pytest.mark.slow
def test_without_an_output_there_are_maps_as_well(tmp_path: Path) -> None:
    source = write_chain(tmp_path)
    _, entries = convert_with_maps(source)
    expected = (tmp_path / "b").read_bytes()
    convert(source, NullSink(), map_out=tmp_path / "m2", bmap=tmp_path / "b2")
    assert json.loads((tmp_path / "m2").read_text()) == entries
    assert (tmp_path / "b2").read_bytes() == expected


def test_maps_go_with_digests_and_verification(tmp_path: Path) -> None:
    out, entries = convert_with_maps(
        write_chain(tmp_path), hash_algorithm="sha256", verify=True, sync=False, state=None
    )
    assert_bmap_describes(tmp_path / "b", out.read_bytes(), data_in(entries))


@pytest.mark.slow
def test_what_was_lost_is_a_hole_of_the_map(tmp_path: Path, capfd: Capture) -> None:
    spec = ImageSpec(4 * MIB, MIB, {0: Block(), 3: Block()})
    spec.write(tmp_path / "cut.vhdx")
    os.truncate(tmp_path / "cut.vhdx", (tmp_path / "cut.vhdx").stat().st_size - MIB // 2)
    words: list[str | Path] = [
        "--salvage",
        "--map-out",
        tmp_path / "map",
        tmp_path / "cut.vhdx",
        tmp_path / "out",
    ]
    assert run(capfd, *words).exit_code == 3
    entries = json.loads((tmp_path / "map").read_text())
    assert (
        data_in(entries) == stored_ranges(tmp_path / "out") == [(0, MIB), (3 * MIB, 7 * MIB // 2)]
    )


def test_map_of_a_block_device(tmp_path: Path) -> None:
    source = write_chain(tmp_path)
    _, entries = convert_with_maps(source, holes="source")
    with loop_devices(tmp_path) as devices:
        device = devices.make()
        maps = {"map_out": tmp_path / "m2", "bmap": tmp_path / "b2"}
        convert(source, device, force=True, holes="source", **maps)  # type: ignore[arg-type]
    assert json.loads((tmp_path / "m2").read_text()) == entries
    assert (tmp_path / "b2").read_bytes() == (tmp_path / "b").read_bytes()


def test_cloning_is_left_out(tmp_path: Path) -> None:
    """Also where it could be done: the map needs everything in its turn."""
    source = write_chain(tmp_path)
    result = convert(source, tmp_path / "out", map_out=tmp_path / "map", clone=True)
    assert result.cloned_bytes == 0


# -- what can go wrong ----------------------------------------------------------------------------


def test_existing_map_is_replaced_with_force_only(tmp_path: Path, capfd: Capture) -> None:
    small_disk().write(tmp_path / "disk.vhdx")
    (tmp_path / "map").write_text("mine")
    words: list[str | Path] = [
        "--map-out",
        tmp_path / "map",
        tmp_path / "disk.vhdx",
        tmp_path / "out",
    ]
    outcome = run(capfd, *words)
    assert (outcome.exit_code, names_in(tmp_path)) == (7, ["disk.vhdx", "map"])
    assert outcome.err_lines[0] == f"vhdx2raw: {tmp_path / 'map'}: exists already"
    assert run(capfd, "--force", *words).exit_code == 0
    assert json.loads((tmp_path / "map").read_text())


@pytest.mark.parametrize("option", ["--map-out", "--bmap"])
def test_the_source_is_no_map(tmp_path: Path, capfd: Capture, option: str) -> None:
    small_disk().write(tmp_path / "disk.vhdx")
    before = (tmp_path / "disk.vhdx").read_bytes()
    words: list[str | Path] = [
        "--force",
        option,
        tmp_path / "disk.vhdx",
        tmp_path / "disk.vhdx",
        tmp_path / "out",
    ]
    outcome = run(capfd, *words)
    assert (outcome.exit_code, names_in(tmp_path)) == (7, ["disk.vhdx"])
    assert "is the input itself" in outcome.err_lines[0]
    assert (tmp_path / "disk.vhdx").read_bytes() == before


@pytest.mark.parametrize("other", ["out", "map", "state"])
def test_two_outputs_have_two_names(tmp_path: Path, other: str) -> None:
    small_disk().write(tmp_path / "disk.vhdx")
    out, state, bmap = tmp_path / "out", tmp_path / "state", tmp_path / "." / other
    with pytest.raises(OutputError, match="is another output of the same run"):
        convert(tmp_path / "disk.vhdx", out, state=state, map_out=tmp_path / "map", bmap=bmap)
    assert names_in(tmp_path) == ["disk.vhdx"]


@pytest.mark.parametrize("options", [{"update": True}, {"resume": True}])
def test_what_does_not_write_all_has_no_map(tmp_path: Path, options: dict[str, bool]) -> None:
    with pytest.raises(ValueError, match="a map is one of all that is written"):
        convert(tmp_path / "disk.vhdx", tmp_path / "out", bmap=tmp_path / "b", **options)  # type: ignore[arg-type]


FAULTS: dict[str, tuple[str, Callable[[str], bool]]] = {
    "write": ("pwrite", lambda name: ".map." in name),
    "flush": ("sync", lambda name: ".map." in name),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_map_that_cannot_be_written_leaves_nothing(
    tmp_path: Path, capfd: Capture, fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is complete, but for its name, before the image appears."""
    name, is_meant = FAULTS[fault]
    function = getattr(host, name)

    def fail(descriptor: int, *arguments: Any) -> Any:  # noqa: ANN401
        if is_meant(os.readlink(f"/proc/self/fd/{descriptor}")):  # noqa: PTH115
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return function(descriptor, *arguments)

    monkeypatch.setattr(host, name, fail)
    small_disk().write(tmp_path / "disk.vhdx")
    words: list[str | Path] = [
        "--map-out",
        tmp_path / "map",
        tmp_path / "disk.vhdx",
        tmp_path / "out",
    ]
    outcome = run(capfd, *words)
    assert (outcome.exit_code, names_in(tmp_path)) == (8, ["disk.vhdx"])
    assert f"{tmp_path / 'map'}: cannot be written: No space left" in outcome.err_lines[0]


def take_names(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    """Let someone else take names of outputs in the last moment."""
    link = host.link

    def take_name(path: str, new_path: str) -> None:
        if Path(new_path).name in names:
            Path(new_path).write_text("theirs")
        link(path, new_path)

    monkeypatch.setattr(host, "link", take_name)


@pytest.mark.slow
@pytest.mark.parametrize("destination", ["out", "null:"])
@pytest.mark.parametrize("taken", ["map", "b"])
def test_map_that_cannot_appear_does_not_hide_that_the_image_is_complete(
    tmp_path: Path, capfd: Capture, destination: str, taken: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other map is there, and so is what else was asked for."""
    monkeypatch.chdir(tmp_path)
    small_disk().write(tmp_path / "disk.vhdx")
    take_names(monkeypatch, taken)
    kept = ["--save-state"] if destination == "out" else []
    outcome = run(capfd, "--bmap", "b", "--map-out", "map", *kept, "disk.vhdx", destination)
    assert outcome.exit_code == 8
    problem = f"{destination} is complete, but a map of it is not: {taken}: exists already"
    assert outcome.err_lines[0] == f"vhdx2raw: {problem}"
    assert (tmp_path / taken).read_text() == "theirs"
    expected = {"disk.vhdx", "map", "b"}
    if destination == "out":
        expected |= {"out", "out.state.json"}
        assert has_expected_bytes(tmp_path / "out", small_disk())
    assert set(names_in(tmp_path)) == expected


def test_a_loss_is_told_even_then(
    tmp_path: Path, capfd: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    ImageSpec(4 * MIB, MIB, {0: Block(), 3: Block()}).write(tmp_path / "cut.vhdx")
    os.truncate(tmp_path / "cut.vhdx", (tmp_path / "cut.vhdx").stat().st_size - MIB // 2)
    take_names(monkeypatch, "map")
    outcome = run(capfd, "--salvage", "--map-out", "map", "cut.vhdx", "out")
    assert outcome.exit_code == 8
    lost = "vhdx2raw: cut.vhdx: salvaged; lost 524288 bytes, which are zeros in out"
    assert outcome.err_lines[0] == lost
    assert "out is complete, but a map of it is not" in outcome.err_lines[1]
