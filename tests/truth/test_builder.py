"""The builder and the naive reader agree with the format document and with each other."""

import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.builder import (
    GIB,
    GOLDEN_FILE_SHA256,
    GOLDEN_RAW_SHA256,
    METADATA_REGION,
    MIB,
    TIB,
    BitmapSpec,
    Block,
    BlockGeometry,
    BlockState,
    ImageSpec,
    LogContext,
    ZeroDescriptorSpec,
    address_pattern,
    append_entries,
    changed_sectors,
    checksum_of,
    child_of,
    crc32c,
    data_descriptors,
    golden_g1,
    golden_g2,
    golden_g3,
    golden_g4,
    make_dirty,
    parent_locator,
)
from tests.support.files import sha256_of
from tests.support.naive_reader import NaiveDisk, NaiveReaderError, read_virtual_disk
from tests.support.real_images import REAL_IMAGES, needs_real_images, unpack_real_image

GOLDEN = {"g1": golden_g1, "g2": golden_g2, "g3": golden_g3, "g4": golden_g4}
ALL_STATES = (
    BlockState.NOT_PRESENT,
    BlockState.UNDEFINED,
    BlockState.ZERO,
    BlockState.UNMAPPED,
    BlockState.FULLY_PRESENT,
)


def write_all(folder: Path, *specs: ImageSpec) -> list[Path]:
    """Write images, child first, and give their paths."""
    paths = [folder / f"{spec.tag}-{number}.vhdx" for number, spec in enumerate(specs)]
    for path, spec in zip(paths, specs, strict=True):
        spec.write(path)
    return paths


def assert_readers_agree(folder: Path, *specs: ImageSpec) -> None:
    """Compare description and naive reader, whole and at some places."""
    disk = NaiveDisk(write_all(folder, *specs))
    assert disk.size == specs[0].virtual_disk_size
    assert disk.sha256() == specs[0].expected_sha256()
    for offset in range(0, disk.size, max(1, disk.size // 7)):
        start = max(0, offset - 777)
        length = min(4321, disk.size - start)
        assert disk.read(start, length) == specs[0].expected_disk(start, length)


# -- golden images, vectors ------------------------------------------------------------------


@pytest.mark.parametrize("name", GOLDEN)
def test_golden_file_is_built_to_the_byte(name: str, tmp_path: Path) -> None:
    path = tmp_path / "golden.vhdx"
    GOLDEN[name]().write(path)
    assert sha256_of(path) == GOLDEN_FILE_SHA256[name]


@pytest.mark.parametrize("name", GOLDEN)
def test_golden_description_gives_the_raw_disk(name: str) -> None:
    assert GOLDEN[name]().expected_sha256() == GOLDEN_RAW_SHA256[name]


@pytest.mark.parametrize("name", GOLDEN)
def test_naive_reader_reads_golden_image(name: str, tmp_path: Path) -> None:
    specs = [GOLDEN[name]()] + ([golden_g1()] if name == "g3" else [])
    assert NaiveDisk(write_all(tmp_path, *specs)).sha256() == GOLDEN_RAW_SHA256[name]


@pytest.mark.parametrize(
    ("data", "checksum"),
    [
        (b"123456789", 0xE3069283),
        (bytes(32), 0x8A9136AA),
        (b"\xff" * 32, 0x62A8AB43),
        (bytes(4096), 0x98F94189),
        (bytes(65536), 0x72C0C4A4),
        (b"", 0),
    ],
)
def test_crc_vectors(data: bytes, checksum: int) -> None:
    assert crc32c(data) == checksum


def test_checksum_of_real_region_table(tmp_path: Path) -> None:
    """The default region table is that of every Hyper-V sample."""
    path = tmp_path / "base.vhdx"
    golden_g1().write(path)
    table = path.read_bytes()[192 << 10 : 256 << 10]
    assert table[4:8] == bytes.fromhex("AE8C6BC6")
    assert checksum_of(table) == 0xC66B8CAE


def test_checksum_of_region_table_with_metadata_first() -> None:
    """The order of entries of the Disk2vhd sample gives its checksum."""
    spec = golden_g1()
    for table in spec.region_tables:
        table.entries.reverse()
    assert dict(spec.table_pieces())[192 << 10][4:8] == struct.pack("<I", 0x1C142859)


def test_log_entry_of_golden_g2_byte_by_byte() -> None:
    """The entry has the bytes of section 4.4 of the format document."""
    spec = golden_g2()
    (entry,) = spec.log.entries
    packed = entry.pack(LogContext(spec.log_guid, spec.log_length, spec.resolved_file_size))
    assert entry.position == 0xFF000
    assert packed[:0x60] == bytes.fromhex(
        "6C6F6765 EA43944E 00200000 00F00F00 0807060504030201 01000000 00000000"
        + "44" * 16
        + "0000600000000000 0000600000000000"
        "64657363 00000000 0600400000000000 0000300000000000 0807060504030201"
    )
    assert packed[0x60:0x1000] == bytes(0xFA0)
    assert packed[0x1000:0x1008] == bytes.fromhex("64617461 04030201")
    entries = struct.pack("<3Q", 0, 2, 0x500006)
    assert packed[0x1008:0x1FFC] == entries.ljust(4084, b"\0")
    assert packed[0x1FFC:] == bytes.fromhex("08070605")


def test_log_entry_runs_over_the_end_of_the_ring(tmp_path: Path) -> None:
    """The second sector of the wrapped entry lies at the start of the log."""
    path = tmp_path / "g2.vhdx"
    golden_g2().write(path)
    image = path.read_bytes()
    assert image[0x1FF000:0x1FF004] == b"loge"
    assert image[0x100000:0x100004] == b"data"


def test_locator_of_golden_g3() -> None:
    locator = golden_g3().locator
    assert locator is not None
    assert len(locator) == 192
    assert locator[:44] == bytes.fromhex(
        "B7EF4AB09ED1814AB78925B8E9445913000002002C000000480000001C004C0094000000AE0000001A001200"
    )


@pytest.mark.parametrize(
    ("gib", "sector_size", "block_mib", "dynamic", "differencing"),
    [
        (10, 512, 1, 10242, 12291),
        (10, 512, 32, 322, 387),
        (10, 4096, 1, 10240, 32769),
        (64 << 10, 512, 1, 67125247, 67125248),
        (64 << 10, 4096, 32, 2099199, 2099200),
        (4, 512, 32, 128, 129),
    ],
)
def test_bat_entry_counts(
    gib: int, sector_size: int, block_mib: int, dynamic: int, differencing: int
) -> None:
    """The counts are those of table 4.3."""
    geometry = BlockGeometry(gib * GIB, block_mib * MIB, sector_size)
    assert geometry.bat_entry_count(differencing=False) == dynamic
    assert geometry.bat_entry_count(differencing=True) == differencing


# -- the builder -----------------------------------------------------------------------------


def test_address_pattern_names_its_offset_at_any_cut() -> None:
    """Every 512 bytes begin with their offset, wherever the range is cut."""
    whole = address_pattern(0, 64 << 10, "x")
    assert len(whole) == 64 << 10
    for offset in range(0, len(whole), 512):
        assert struct.unpack_from("<Q", whole, offset) == (offset,)
        assert 0 not in whole[offset + 8 : offset + 512]
    assert address_pattern(777, 4321, "x") == whole[777 : 777 + 4321]
    assert address_pattern(0, 4096, "x") != address_pattern(0, 4096, "y")


def test_same_description_gives_same_file(tmp_path: Path) -> None:
    first, second = write_all(tmp_path, golden_g3(), golden_g3())
    assert first.read_bytes() == second.read_bytes()


def test_largest_disk_is_built_sparse(tmp_path: Path) -> None:
    """A 64 TiB disk of 1 MiB blocks costs a few pages and its four blocks."""
    last = 64 * TIB // MIB - 1
    spec = ImageSpec(64 * TIB, MIB, {k: Block() for k in (last, 4096, 4095, 0)})
    path = tmp_path / "large.vhdx"
    spec.write(path)
    assert spec.resolved_bat_length == 513 * MIB
    assert path.stat().st_size == (3 + 513 + 4) * MIB
    assert path.stat().st_blocks * 512 < 5 * MIB
    disk = NaiveDisk([path])
    for block_index in (0, 1, 4095, 4096, 4097, last):
        offset = block_index * MIB
        assert disk.read(offset, MIB) == spec.expected_disk(offset, MIB)


@pytest.mark.parametrize("number", [0, 1])
def test_checksum_override_stands_alone(number: int, tmp_path: Path) -> None:
    """A broken header checksum changes nothing else in the file."""
    good, broken = golden_g1(), golden_g1()
    broken.headers[number].checksum = 0xDEADBEEF
    paths = write_all(tmp_path, good, broken)
    expected = bytearray(paths[0].read_bytes())
    offset = (number + 1) * (64 << 10) + 4
    expected[offset : offset + 4] = bytes.fromhex("EFBEADDE")
    assert paths[1].read_bytes() == expected


def broken_version(spec: ImageSpec) -> None:
    """Put version 2 into the current header."""
    spec.headers[1].version = 2


def broken_region_signature(spec: ImageSpec) -> None:
    """Misspell the signature of the first region table."""
    spec.region_tables[0].signature = b"rigi"


def broken_metadata_place(spec: ImageSpec) -> None:
    """Let both region tables place the metadata where the BAT is."""
    spec.region_tables[0].entry(METADATA_REGION).file_offset = 3 * MIB
    spec.region_tables[1].entry(METADATA_REGION).file_offset = 3 * MIB


def broken_bat_bits(spec: ImageSpec) -> None:
    """Set a reserved bit."""
    spec.blocks[0].reserved_bits = 1


def broken_size(spec: ImageSpec) -> None:
    """Cut the last 4 KiB of the last block off."""
    spec.file_size = 5 * MIB - 4096


def broken_bytes(spec: ImageSpec) -> None:
    """Write a foreign signature over the file."""
    spec.patches[0] = b"conectix"


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (broken_version, "bad version"),
        (broken_region_signature, "bad region table"),
        (broken_metadata_place, "bad metadata table"),
        (broken_bat_bits, "reserved bits of a BAT entry"),
        (broken_size, "read beyond the end of the file"),
        (broken_bytes, "not a VHDX"),
    ],
)
def test_one_changed_field_breaks_the_image(
    damage: Callable[[ImageSpec], None], message: str, tmp_path: Path
) -> None:
    """Each kind of damage is seen by the naive reader as just that."""
    spec = golden_g1()
    damage(spec)
    paths = write_all(tmp_path, spec)
    with pytest.raises(NaiveReaderError, match=message):
        NaiveDisk(paths).sha256()


def test_locator_faults_are_written_as_asked() -> None:
    """Count and order of the packed strings can be set."""
    locator = parent_locator([("key", "value"), ("k", "")], count=9, reserved=7)
    assert struct.unpack_from("<HH", locator, 16) == (7, 9)
    assert struct.unpack_from("<IIHH", locator, 32) == (60, 62, 2, 0)
    assert locator[44:] == "keyvaluek".encode("utf-16-le")


# -- description and naive reader agree ------------------------------------------------------


def test_blocks_in_shuffled_order(tmp_path: Path) -> None:
    """Blocks may lie in any order, with gaps, and the last one is used in part."""
    blocks = {k: Block() for k in (7, 0, 5, 2)}
    blocks[3] = Block(file_offset=64 * MIB)
    blocks[1] = Block(content=0)
    blocks[4] = Block(BlockState.UNMAPPED, file_offset=30 * MIB)
    assert_readers_agree(tmp_path, ImageSpec(7 * 2 * MIB + 1536, 2 * MIB, blocks))


def test_structures_in_unusual_places(tmp_path: Path) -> None:
    """BAT, log and metadata may lie in any order."""
    spec = ImageSpec(3 * MIB, MIB, {2: Block(), 0: Block()})
    spec.bat_offset, spec.log_offset, spec.metadata_offset = MIB, 9 * MIB, 12 * MIB
    spec.metadata.items.reverse()
    assert_readers_agree(tmp_path, spec)


def test_disk_of_4096_byte_sectors_over_several_chunks(tmp_path: Path) -> None:
    """With 4096-byte sectors a chunk is 32 GiB."""
    last = (32 * GIB + 8192) // (256 * MIB)
    blocks = {k: Block(content={5: b"only this", 256 * MIB - 4: b"last"}) for k in (last, 0, 127)}
    spec = ImageSpec(32 * GIB + 8192, 256 * MIB, blocks, logical_sector_size=4096)
    (path,) = write_all(tmp_path, spec)
    for k in (0, 127, last):
        offset = k * 256 * MIB
        for start in (offset, offset + 256 * MIB - 8192):
            length = min(8192, spec.virtual_disk_size - start)
            if length > 0:
                expected = spec.expected_disk(start, length)
                assert any(expected)
                assert read_virtual_disk([path], start, length) == expected


@pytest.mark.parametrize("leave_block_allocated", [False, True])
def test_blocks_on_both_sides_of_chunk_borders(
    leave_block_allocated: bool,  # noqa: FBT001
    tmp_path: Path,
) -> None:
    """Dynamic and fixed tables are interleaved alike, whatever the unused slots hold."""
    blocks = {k: Block(content={0: b"block %d" % k}) for k in (0, 15, 16, 31, 32)}
    spec = ImageSpec(33 * 256 * MIB, 256 * MIB, blocks)
    spec.leave_block_allocated = leave_block_allocated
    spec.bat_overrides = {16: 0xFFFFF00007, 33: 0x400006, 40: 0x123456789ABCDEF}
    (path,) = write_all(tmp_path, spec)
    for k in range(33):
        start = k * 256 * MIB
        expected = (b"block %d" % k if k in blocks else b"").ljust(512, b"\0")
        assert spec.expected_disk(start, 512) == expected
        assert read_virtual_disk([path], start, 512) == expected


def three_layers(sector_size: int = 512) -> tuple[ImageSpec, ImageSpec, ImageSpec]:
    """Give top, middle and base: three block sizes, the middle one the smallest disk."""
    base = ImageSpec(
        16 * MIB, MIB, {k: Block() for k in range(15, -1, -1)}, logical_sector_size=sector_size
    )
    middle = child_of(base, ".\\base.vhdx", tag="middle", block_size=4 * MIB)
    middle.virtual_disk_size = 11 * MIB
    middle.blocks[2] = Block(BlockState.PARTIALLY_PRESENT, sector_bits=range(3, 300, 3))
    middle.blocks[0] = Block(BlockState.NOT_PRESENT, sector_bits=range(64))
    top = child_of(middle, ".\\middle.vhdx", tag="top", block_size=2 * MIB)
    top.virtual_disk_size = 18 * MIB
    for k, state in enumerate(ALL_STATES):
        top.blocks[k] = Block(state)
    top.blocks[4].sector_bits = ()
    for k in (5, 8):
        top.blocks[k] = Block(BlockState.PARTIALLY_PRESENT, sector_bits={0, 1, 3, 8, 511})
    return top, middle, base


@pytest.mark.parametrize("sector_size", [512, 4096])
def test_three_layers_with_a_small_middle(sector_size: int, tmp_path: Path) -> None:
    """Sectors come from the topmost layer that has them; the middle's end hides the base."""
    top, middle, base = three_layers(sector_size)
    assert_readers_agree(tmp_path, top, middle, base)
    assert top.expected_disk(0, 2 * MIB) == address_pattern(0, 2 * MIB, "base")
    assert top.expected_disk(2 * MIB, 6 * MIB) == bytes(6 * MIB)
    hidden = top.expected_disk(12 * MIB, 4 * MIB)
    assert hidden == bytes(4 * MIB)


def test_zero_states_of_a_middle_layer_hide_the_base(tmp_path: Path) -> None:
    """Where the child has no sector, a middle block of any zero state gives zeros."""
    base = ImageSpec(5 * MIB, MIB, {k: Block() for k in range(5)})
    middle = child_of(base, ".\\base.vhdx", tag="middle")
    middle.blocks = {k: Block(state) for k, state in enumerate(ALL_STATES)}
    partial = {k: Block(BlockState.PARTIALLY_PRESENT, sector_bits={1, 9}) for k in range(5)}
    top = child_of(middle, ".\\middle.vhdx", tag="top", blocks=partial)
    assert_readers_agree(tmp_path, top, middle, base)
    shown = [any(top.expected_disk(k * MIB, 512)) for k in range(5)]
    assert shown == [True, False, False, False, True]


def test_bitmap_of_ones_is_ignored_for_other_states(tmp_path: Path) -> None:
    """A bitmap full of ones in a chunk without partial blocks changes nothing."""
    base = ImageSpec(4 * MIB, MIB, {k: Block() for k in range(4)})
    child = child_of(base, ".\\base.vhdx", blocks={1: Block(BlockState.ZERO), 2: Block()})
    child.bitmaps[0] = BitmapSpec(file_offset=20 * MIB, fill=0xFF)
    assert_readers_agree(tmp_path, child, base)
    assert child.expected_disk(0, 512) == address_pattern(0, 512, "base")


def test_partial_block_without_bitmap_can_be_built(tmp_path: Path) -> None:
    """A bitmap block can be left out although a block needs it."""
    child = golden_g3()
    child.bitmaps[0] = None
    paths = write_all(tmp_path, child, golden_g1())
    with pytest.raises(NaiveReaderError, match="no sector bitmap"):
        NaiveDisk(paths).sha256()


@pytest.mark.parametrize("entry_count", [1, 3])
def test_dirty_image_reads_as_after_replay(entry_count: int, tmp_path: Path) -> None:
    """A log spread over entries, wrapped at the end, brings tables and bitmaps up to date."""
    top, middle, base = three_layers()
    before = child_of(middle, ".\\old.vhdx", tag="top", block_size=2 * MIB)
    dirty = make_dirty(before, top, entry_count=entry_count, position=MIB - 8192)
    assert len(dirty.log.entries) == entry_count
    assert len(changed_sectors(before, top)) > entry_count
    assert_readers_agree(tmp_path, dirty, middle, base)


def test_log_moves_the_metadata(tmp_path: Path) -> None:
    """Region tables are read through the log."""
    before, after = golden_g1(), golden_g1()
    after.metadata_offset = 7 * MIB
    after.blocks[0].file_offset = before.blocks[0].file_offset = 5 * MIB
    assert_readers_agree(tmp_path, make_dirty(before, after))


def test_only_the_newest_sequence_is_replayed(tmp_path: Path) -> None:
    """Stale entries before the tail, older sequences and torn entries have no effect."""
    after = golden_g1()
    after.blocks[3] = Block(content=0xB6)
    dirty = make_dirty(golden_g1(), after, position=0x20000, sequence_number=50)
    (entry,) = dirty.log.entries
    harmful = data_descriptors({2 * MIB: b"\xee" * 4096})
    append_entries(dirty.log, [harmful], position=entry.position - 8192, sequence_number=49)
    append_entries(dirty.log, [harmful], position=0, sequence_number=7, tail=0)
    append_entries(dirty.log, [harmful], position=0x40000, sequence_number=7, tail=0x40000)
    (torn,) = append_entries(
        dirty.log, [harmful], position=0x22000, sequence_number=51, tail=0x20000
    )
    torn.descriptors[0].sequence_number = 52
    assert_readers_agree(tmp_path, dirty)


def test_many_descriptors_and_a_zero_descriptor(tmp_path: Path) -> None:
    """Descriptors fill several sectors; zeros need no data sector."""
    spec = golden_g1()
    free = 3 * MIB + 8192
    sectors = {free + 4096 * i: b"\x5a" * 4096 for i in range(150)}
    zeros = ZeroDescriptorSpec(3 * MIB + 4096, 1 << 62)
    spec.log_guid = golden_g2().log_guid
    append_entries(spec.log, [[*data_descriptors(sectors), ZeroDescriptorSpec(free, 0)]])
    assert spec.log.entries[0].size == 4096 * (2 + 150)
    assert_readers_agree(tmp_path, spec)
    append_entries(spec.log, [[zeros]])
    (path,) = write_all(tmp_path, spec)
    assert read_virtual_disk([path], 0, 4096) == bytes(4096)


def test_naive_reader_demands_the_whole_chain(tmp_path: Path) -> None:
    with pytest.raises(NaiveReaderError, match="the chain is not complete"):
        NaiveDisk(write_all(tmp_path, golden_g3()))


# -- real images -----------------------------------------------------------------------------


@needs_real_images
@pytest.mark.parametrize("name", REAL_IMAGES)
def test_naive_reader_reads_real_image(name: str, tmp_path: Path) -> None:
    _, expected = REAL_IMAGES[name]
    assert NaiveDisk([unpack_real_image(name, tmp_path)]).sha256() == expected
