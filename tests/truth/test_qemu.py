"""qemu-img as the second truth: on images that it writes, and on images that the builder writes."""

import json
import random
from pathlib import Path

import pytest

from tests.support.builder import GIB, MIB, Block, BlockState, ImageSpec, address_pattern, golden_g4
from tests.support.files import assert_same_disk, has_expected_bytes, sha256_of
from tests.support.peers import run_peer
from vhdx2raw import convert
from vhdx2raw.disk.chain import open_chain
from vhdx2raw.disk.virtual_disk import open_disk
from vhdx2raw.operations.measure import measure
from vhdx2raw.output.sparse_file import SparseFileSink

BLOCK_SIZES = [1, 2, 8, 32, 256]
ODD_SIZE = 9 * MIB + 512
SUBFORMATS = [
    "subformat=dynamic",
    "subformat=dynamic,block_state_zero=off",
    "subformat=fixed",
    "subformat=fixed,block_state_zero=off",
]


def convert_both_ways(image: Path) -> tuple[Path, Path]:
    """Convert an image by this package and by qemu-img; give the two raw files."""
    ours, theirs = image.with_suffix(".ours"), image.with_suffix(".theirs")
    with open_disk(image) as disk:
        convert(disk, SparseFileSink(ours, disk.size, inputs=disk.chain.identities))
    run_peer("qemu-img", "convert", "-f", "vhdx", "-O", "raw", image, theirs)
    return ours, theirs


def write_raw(path: Path, size: int, pieces: dict[int, bytes]) -> None:
    """Write a raw disk of `size` bytes with these pieces, sparse elsewhere."""
    with path.open("wb") as file:
        file.truncate(size)
        for offset, data in pieces.items():
            file.seek(offset)
            file.write(data[: size - offset])


def patterns(size: int) -> dict[str, dict[int, bytes]]:
    """Describe disks: empty, full of addresses, a little here and there, one byte at the end."""
    scattered = [0, 511, 4096, MIB - 1, 3 * MIB + 512, 7 * MIB, size - 512]
    return {
        "zero": {},
        "full": {0: address_pattern(0, size)},
        "scattered": dict.fromkeys(scattered, b"data" * 100),
        "end": {size - 1: b"\xff"},
    }


@pytest.mark.parametrize("pattern", ["zero", "full", "scattered", "end"])
@pytest.mark.parametrize("subformat", SUBFORMATS)
def test_what_qemu_img_put_into_an_image_comes_out(
    tmp_path: Path, subformat: str, pattern: str
) -> None:
    raw, image = tmp_path / "disk.raw", tmp_path / "disk.vhdx"
    write_raw(raw, ODD_SIZE, patterns(ODD_SIZE)[pattern])
    options = f"{subformat},block_size={2 * MIB}"
    run_peer("qemu-img", "convert", "-f", "raw", "-O", "vhdx", "-o", options, raw, image)
    assert_same_disk(raw, *convert_both_ways(image))


@pytest.mark.parametrize("size", [MIB, ODD_SIZE, 40 * MIB, 300 * MIB + 1024])
@pytest.mark.parametrize("block_size", BLOCK_SIZES)
def test_blocks_of_qemu_io_in_any_order_are_found(
    tmp_path: Path, block_size: int, size: int
) -> None:
    raw, image = tmp_path / "disk.raw", tmp_path / "disk.vhdx"
    shuffled = random.Random(f"{block_size} {size}")
    places = sorted({0, size - 512, *(shuffled.randrange(size // 512) * 512 for _ in range(10))})
    shuffled.shuffle(places)
    options = f"subformat=dynamic,block_size={block_size * MIB}"
    run_peer("qemu-img", "create", "-f", "vhdx", "-o", options, image, str(size))
    writes = [
        (offset, min(shuffled.choice([512, 4096, 65536]), size - offset), value)
        for value, offset in enumerate(places, 1)
    ]
    commands = [f"write -P {value} {offset} {length}" for offset, length, value in writes]
    run_peer("qemu-io", "-f", "vhdx", *(f"-c{command}" for command in commands), image)
    with raw.open("wb") as file:
        file.truncate(size)
        for offset, length, value in writes:
            file.seek(offset)
            file.write(bytes([value]) * length)
    assert_same_disk(raw, *convert_both_ways(image))


@pytest.mark.parametrize("size", [512, MIB + 512, 64 * GIB])
def test_an_empty_image_of_qemu_img_is_a_hole(tmp_path: Path, size: int) -> None:
    image, out = tmp_path / "disk.vhdx", tmp_path / "out.img"
    run_peer("qemu-img", "create", "-f", "vhdx", image, str(size))
    with open_disk(image) as disk:
        result = convert(disk, SparseFileSink(out, disk.size))
    assert (result.data_bytes, result.written_bytes) == (0, 0)
    assert out.stat().st_size == size
    assert out.stat().st_blocks == 0


BUILT = {
    "shuffled": ImageSpec(
        9 * MIB + 512, MIB, {index: Block() for index in random.Random(7).sample(range(10), 8)}
    ),
    "states": ImageSpec(
        12 * MIB,
        2 * MIB,
        {
            5: Block(content={512: b"data", 2 * MIB - 1: b"!"}),
            1: Block(BlockState.ZERO),
            0: Block(),
            3: Block(BlockState.UNMAPPED),
            2: Block(content=0),
        },
    ),
    "fixed": ImageSpec(
        6 * MIB, 2 * MIB, {index: Block() for index in range(3)}, leave_block_allocated=True
    ),
    "large blocks": ImageSpec(300 * MIB, 256 * MIB, {1: Block(content={0: b"data"})}),
    "several chunks": golden_g4(),
}


@pytest.mark.parametrize("name", BUILT)
def test_qemu_img_reads_built_images_as_we_do(tmp_path: Path, name: str) -> None:
    image = tmp_path / "disk.vhdx"
    BUILT[name].write(image)
    before = sha256_of(image)
    ours, theirs = convert_both_ways(image)
    if BUILT[name].virtual_disk_size < 64 * MIB:
        assert has_expected_bytes(ours, BUILT[name])
    assert_same_disk(ours, theirs)
    assert sha256_of(image) == before


@pytest.mark.parametrize("name", BUILT)
def test_qemu_img_measures_what_we_measure(tmp_path: Path, name: str) -> None:
    """The length of a raw image is the same; how much space it takes up, only we say."""
    image, raw = tmp_path / "disk.vhdx", tmp_path / "disk.raw"
    BUILT[name].write(image)
    asked = ("qemu-img", "measure", "--output=json", "-f", "vhdx", "-O", "raw", image)
    with open_chain(image) as chain:
        required, fully_allocated, sparse = measure(chain)
    theirs = json.loads(run_peer(*asked))
    assert (theirs["required"], theirs["fully-allocated"]) == (required, fully_allocated)
    run_peer("qemu-img", "convert", "-f", "vhdx", "-O", "raw", image, raw)
    assert raw.stat().st_blocks * 512 <= sparse
