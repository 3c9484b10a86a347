"""What is read of a disk in one go: the same bytes as by extents, in fewer reads."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.builder import GIB, KIB, MIB, Block, BlockState, ImageSpec, child_of
from tests.support.chains import chain_bytes
from tests.support.naive_reader import NaiveDisk
from tests.support.properties import cases
from tests.support.random_chains import RandomChain, chains, ranges
from vhdx2raw import convert
from vhdx2raw.disk.chain import OpenOptions, open_chain
from vhdx2raw.disk.extents import ExtentKind
from vhdx2raw.disk.reading import FEW_RUNS, MAX_BUFFERS, Blend, Share, iter_stretches
from vhdx2raw.disk.virtual_disk import VirtualDisk, open_disk
from vhdx2raw.errors import TruncatedImageError
from vhdx2raw.source.file import FileSource
from vhdx2raw.vhdx.layout import BAT_ENTRY_SIZE

PARTIAL = BlockState.PARTIALLY_PRESENT


def alternating(folder: Path, step: int, layers: int = 2, size: int = 2 * MIB) -> list[Path]:
    """Write a chain that changes its owner every `step` sectors, and return its paths."""
    spec = ImageSpec(size, MIB, {index: Block() for index in range(size // MIB)})
    paths = [folder / "0.vhdx"]
    spec.write(paths[0])
    for number in range(1, layers):
        bits = {bit for bit in range(2048) if bit // step % layers == number}
        block = Block(PARTIAL, sector_bits=bits)
        spec = child_of(
            spec,
            f".\\{number - 1}.vhdx",
            block_size=MIB,
            blocks=dict.fromkeys(range(size // MIB), block),
            file_write_guid=UUID(int=number),
            data_write_guid=UUID(int=number),
            tag=str(number),
        )
        paths.insert(0, folder / f"{number}.vhdx")
        spec.write(paths[0])
    return paths


@pytest.mark.slow
@cases(25)
@given(chain=chains(), data=st.data(), salvage=st.booleans())
def test_any_range_of_any_chain_is_read_right(
    chain: RandomChain, data: st.DataObject, *, salvage: bool
) -> None:
    """Whatever the layers, sectors, ends and logs: as described, and as a slow reader reads it."""
    size = chain.specs[0].virtual_disk_size
    expected = chain.specs[0].expected_disk(0, size)
    with TemporaryDirectory() as name:
        paths = [Path(name) / f"{spec.tag}.vhdx" for spec in chain.specs]
        for path, spec in zip(paths, chain.files, strict=True):
            spec.write(path)
        naive = NaiveDisk(paths)
        with open_disk(paths[0], OpenOptions(salvage=salvage)) as disk:
            is_right = disk.pread(size, 0) == expected
            assert is_right, "the whole disk"
            for _ in range(8):
                offset, length = data.draw(ranges(chain))
                is_right = disk.pread(length, offset) == naive.read(offset, length)
                assert is_right, f"{length} bytes from {offset:#x} on"
            assert disk.lost.merged() == ()
            output = Path(name) / "disk.img"
            sparse_size = data.draw(st.sampled_from([0, 512, 4096, MIB]))
            result = convert(disk, output, sparse_size=sparse_size, sync=data.draw(st.booleans()))
            is_right = output.read_bytes() == expected
            assert is_right, "the raw image"
            stretches = list(iter_stretches(disk.chain))
            by_extent = [extent for extent in disk.extents() if extent.kind is ExtentKind.DATA]
            stored = sum(extent.length for extent in by_extent)
            assert sum(stretch.data_length for stretch in stretches) == stored
            assert result.data_bytes == stored


@pytest.mark.slow
@pytest.mark.parametrize(("step", "layers"), [(1, 2), (1, 3), (8, 2), (7, 5), (1, 12)])
def test_fine_layers_are_blends(tmp_path: Path, step: int, layers: int) -> None:
    paths = alternating(tmp_path, step, layers)
    with open_disk(paths[0]) as disk:
        stretches = list(iter_stretches(disk.chain))
        assert [type(stretch) for stretch in stretches] == [Blend, Blend]
        assert [stretch.data_length for stretch in stretches] == [MIB, MIB]
        assert disk.pread(disk.size, 0) == chain_bytes(disk.chain)


def test_few_runs_stay_extents(tmp_path: Path) -> None:
    paths = alternating(tmp_path, 2048 // FEW_RUNS)
    with open_chain(paths[0]) as chain:
        assert not any(isinstance(stretch, Blend) for stretch in iter_stretches(chain))


@pytest.mark.parametrize("step", [1, 8])
def test_each_image_is_read_once_for_a_window(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    paths = alternating(tmp_path, step, size=MIB)
    with open_disk(paths[0]) as disk:
        calls: list[str] = []
        original = FileSource.pread_scattered

        def counted(self: FileSource, file_offset: int, buffers: list[memoryview]) -> None:
            assert len(buffers) <= MAX_BUFFERS + 1, "more than the kernel takes"
            calls.append(self.name)
            original(self, file_offset, buffers)

        monkeypatch.setattr(FileSource, "pread_scattered", counted)
        disk.pread(MIB, 0)
    most = -(-2048 // step // MAX_BUFFERS)
    assert len(calls) <= 2 * most
    assert set(calls) == set(map(str, paths))


@given(
    st.integers(0, 5 * 512), st.integers(1, 20 * 512), st.integers(0, 2**60), st.integers(0, 2**60)
)
def test_a_cut_blend_has_the_extents_of_the_whole(
    start: int, length: int, first: int, second: int
) -> None:
    count = -(-(start + length) // 512) - start // 512
    mask = (1 << count) - 1
    shares = (Share(None, 1000, first & mask), Share(None, 5000, second & mask & ~first))  # type: ignore[arg-type]
    blend = Blend(start, length, 512, shares, lost=mask & ~first & ~second & 0b1010101)
    whole = list(blend.iter_extents())
    assert whole[0].virtual_offset == start
    assert whole[-1].virtual_end == start + length
    assert sum(e.length for e in whole if e.kind is ExtentKind.DATA) == blend.data_length
    middle = start + length // 2
    halves = [(start, middle), (middle, start + length)]
    parts = [blend.cut(*half) for half in halves if half[0] < half[1]]
    found = {
        place: (extent.kind, extent.file_offset and extent.file_offset + place)
        for part in parts
        for extent in part.iter_extents()
        for place in (extent.virtual_offset, extent.virtual_end - 1)
    }
    for place, (kind, _) in found.items():
        owner = next(e for e in whole if e.virtual_offset <= place < e.virtual_end)
        assert owner.kind is kind
    assert sum(part.data_length for part in parts) == blend.data_length


def test_a_truncated_file_is_an_error_in_a_blend_too(tmp_path: Path) -> None:
    paths = alternating(tmp_path, 1)
    with open_disk(paths[0]) as disk:
        with paths[1].open("r+b") as file:
            file.truncate(paths[1].stat().st_size - MIB - 100)
        with pytest.raises(TruncatedImageError, match="ends too early"):
            disk.pread(disk.size, 0)


def test_salvage_keeps_what_another_image_has_of_a_blend(tmp_path: Path) -> None:
    paths = alternating(tmp_path, 1, size=MIB)
    with open_disk(paths[0]) as disk:
        whole = disk.pread(MIB, 0)
    with open_disk(paths[0], OpenOptions(salvage=True)) as disk:
        with paths[1].open("r+b") as file:
            file.truncate(paths[1].stat().st_size - MIB)
        saved = disk.pread(MIB, 0)
        lost = disk.lost.merged()
    assert lost == tuple((sector * 512, 512) for sector in range(0, 2048, 2))
    own = [saved[at : at + 512] == whole[at : at + 512] for at in range(512, MIB, 1024)]
    assert all(own)
    assert saved[:512] == bytes(512)


def test_what_a_missing_parent_has_of_a_blend_is_lost(tmp_path: Path) -> None:
    paths = alternating(tmp_path, 1, size=MIB)
    paths[1].unlink()
    with open_disk(paths[0], OpenOptions(salvage=True)) as disk:
        [blend] = iter_stretches(disk.chain)
        assert isinstance(blend, Blend)
        assert list(disk.lost.note_lost([blend])) == [blend]
        assert disk.lost.merged() == tuple((sector * 512, 512) for sector in range(0, 2048, 2))
        assert (disk.lost.total_bytes, disk.lost.unlisted) == (MIB // 2, 0)


def test_tables_of_a_deep_chain_share_one_cache(tmp_path: Path) -> None:
    """A piece of the table of each of 30 images of 64 GiB would be 30 times as much."""
    spec = ImageSpec(64 * GIB, MIB, {0: Block(content=0)})
    spec.write(tmp_path / "0.vhdx")
    for number in range(1, 30):
        spec = child_of(
            spec,
            f".\\{number - 1}.vhdx",
            blocks={number * 2000: Block(content={0: bytes([number])})},
            block_size=MIB,
            file_write_guid=UUID(int=number),
            data_write_guid=UUID(int=number),
        )
        spec.write(tmp_path / f"{number}.vhdx")
    with VirtualDisk(open_chain(tmp_path / "29.vhdx")) as disk:
        for number in range(1, 30):
            assert disk.pread(2, number * 2000 * MIB) == bytes([number, 0])
        tables = [image.bat for image in disk.chain.images]
        kept = [
            bat._read_piece.cache_info().currsize * bat._piece_entries * BAT_ENTRY_SIZE
            for bat in tables
        ]
        assert 0 < sum(kept) <= 4 * MIB
        assert max(kept) <= 4 * MIB // 30 + 4 * 4 * KIB
