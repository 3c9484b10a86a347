"""Chains of images: what they hold, how deep they may be, and what ends them (R94 to R110)."""

import re
from pathlib import Path

import pytest

from tests.support.builder import (
    GOLDEN_FILE_SHA256,
    GOLDEN_RAW_SHA256,
    MIB,
    Block,
    BlockState,
    DataDescriptorSpec,
    ImageSpec,
    address_pattern,
    append_entries,
    child_of,
    golden_g1,
    golden_g3,
    log_sectors,
    make_dirty,
    parent_locator,
    same_bytes_guid,
)
from tests.support.chains import (
    PARTIAL,
    RELATIVE,
    Row,
    base_disk,
    chain_bytes,
    child_with,
    names_of,
    read_chain,
    small_disk,
    table_7_4,
)
from tests.support.files import open_files, sha256_of, write_files
from vhdx2raw.disk.chain import OpenOptions, open_chain
from vhdx2raw.errors import (
    CorruptImageError,
    ImageError,
    ParentCycleError,
    ParentError,
    ParentMismatchError,
    TruncatedImageError,
    UnsupportedImageError,
)
from vhdx2raw.vhdx.log import LogPolicy, LogState

# -- table 7.4 of the format document --------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("row", table_7_4(), ids=lambda row: row.case)
def test_table_7_4(row: Row, tmp_path: Path) -> None:
    path = write_files(tmp_path, row.files)
    child = next(iter(row.files.values()))
    if row.refusal is None:
        with open_chain(path) as chain:
            is_right = chain_bytes(chain) == child.expected_disk(0, child.virtual_disk_size)
            assert is_right
            assert [warning.rule for _, warning in chain.warnings] == list(row.warnings)
        return
    with (
        pytest.raises(row.refusal.error, match=re.escape(row.refusal.text)) as caught,
        open_chain(path),
    ):
        pass
    assert type(caught.value) is row.refusal.error
    assert caught.value.path == str(path)
    assert isinstance(caught.value, ImageError) == bool(row.refusal.rule)
    if isinstance(caught.value, ImageError):
        assert caught.value.finding.rule == row.refusal.rule


def test_golden_g3_is_flattened(tmp_path: Path) -> None:
    path = write_files(tmp_path, {"g3.vhdx": golden_g3(), "g1.vhdx": golden_g1()})
    assert sha256_of(path) == GOLDEN_FILE_SHA256["g3"]
    raw = tmp_path / "g3.img"
    raw.write_bytes(read_chain(path))
    assert sha256_of(raw) == GOLDEN_RAW_SHA256["g3"]


@pytest.mark.parametrize("sector", [0, 1, 2, 3, 2047, 2054, 2055, 2056])
def test_golden_g3_is_right_from_any_byte_on(sector: int, tmp_path: Path) -> None:
    """R90, R93: around sectors that lie in the child, and borders of the parent's blocks."""
    child = golden_g3()
    path = write_files(tmp_path, {"g3.vhdx": child, "g1.vhdx": golden_g1()})
    with open_chain(path) as chain:
        for offset in (512 * sector, 512 * sector + 1, max(0, 512 * sector - 1)):
            for length in (1, 511, 512, 513, 4096):
                expected = child.expected_disk(offset, length)
                assert chain_bytes(chain, offset, length) == expected


# -- sizes (R106, R107) ----------------------------------------------------------------------


def three_sizes(middle_size: int, sector_size: int = 512) -> tuple[ImageSpec, ImageSpec, ImageSpec]:
    """Give top, middle and base, the middle one being the smallest."""
    base = base_disk(logical_sector_size=sector_size)
    middle = child_of(base, RELATIVE, tag="middle", virtual_disk_size=middle_size)
    top = child_of(
        middle,
        ".\\middle.vhdx",
        tag="top",
        virtual_disk_size=6 * MIB,
        block_size=2 * MIB,
        data_write_guid=same_bytes_guid(0x67),
    )
    top.blocks = {1: Block(PARTIAL, sector_bits={0, 7, 100})}
    return top, middle, base


@pytest.mark.slow
@pytest.mark.parametrize("sector_size", [512, 4096])
@pytest.mark.parametrize("middle_size", [MIB, 2 * MIB - 4096, 2 * MIB + 4096, 3 * MIB + 12288])
def test_end_of_the_middle_hides_the_base(
    middle_size: int, sector_size: int, tmp_path: Path
) -> None:
    """R107: what the base holds after it reads as zeros, although the top is larger."""
    top, middle, base = three_sizes(middle_size, sector_size)
    files = {"top.vhdx": top, "middle.vhdx": middle, "base.vhdx": base}
    disk = read_chain(write_files(tmp_path, files))
    assert disk == top.expected_disk(0, 6 * MIB)
    assert disk[:512] == address_pattern(0, 512, "base")
    assert disk[2 * MIB : 2 * MIB + 512] == address_pattern(2 * MIB, 512, "top")
    data_end = max(middle_size, 2 * MIB + 101 * sector_size)
    assert not any(disk[data_end:])


def test_smaller_child_cuts_its_parents(tmp_path: Path) -> None:
    """R107: down to one sector."""
    base = base_disk()
    child = child_of(base, RELATIVE, virtual_disk_size=512)
    assert read_chain(write_files(tmp_path, {"child.vhdx": child, "base.vhdx": base})) == (
        address_pattern(0, 512, "base")
    )


def test_zero_states_of_a_middle_layer_hide_the_base(tmp_path: Path) -> None:
    """R86, R87: also below sectors that are not in the top."""
    base = base_disk()
    states = (BlockState.UNDEFINED, BlockState.ZERO, BlockState.UNMAPPED, BlockState.NOT_PRESENT)
    middle = child_of(base, RELATIVE, blocks={k: Block(state) for k, state in enumerate(states)})
    partial = {k: Block(PARTIAL, sector_bits={1}) for k in range(4)}
    top = child_of(middle, ".\\middle.vhdx", blocks=partial, data_write_guid=same_bytes_guid(9))
    files = {"top.vhdx": top, "middle.vhdx": middle, "base.vhdx": base}
    disk = read_chain(write_files(tmp_path, files))
    assert disk == top.expected_disk(0, 4 * MIB)
    assert [any(disk[k * MIB : k * MIB + 512]) for k in range(4)] == [False, False, False, True]


# -- depth and loops (R108) ------------------------------------------------------------------


def layers(count: int) -> dict[str, ImageSpec]:
    """Describe a deep chain, top first: layer n has sector n, and the root has everything."""
    spec = small_disk(blocks={0: Block()})
    names = {"0.vhdx": spec}
    for number in range(1, count):
        block = Block(PARTIAL, {512 * number: b"layer %d" % number}, sector_bits={number})
        spec = child_of(
            spec,
            f".\\{number - 1}.vhdx",
            blocks={0: block},
            data_write_guid=same_bytes_guid(number % 250 + 1),
        )
        names[f"{number}.vhdx"] = spec
    return dict(reversed(names.items()))


@pytest.mark.slow
def test_chain_of_256_images_is_read(tmp_path: Path) -> None:
    """Every layer is seen through all of those above it."""
    path = write_files(tmp_path, layers(256))
    with open_chain(path) as chain:
        assert len(chain.images) == 256
        disk = chain_bytes(chain)
    for number in range(1, 256):
        sector = disk[512 * number : 512 * (number + 1)]
        assert sector == (b"layer %d" % number).ljust(512, b"\0")
    assert disk[:512] == address_pattern(0, 512, "base")
    assert disk[256 * 512 :] == address_pattern(256 * 512, MIB - 256 * 512, "base")


@pytest.mark.slow
def test_chain_of_257_images_is_refused(tmp_path: Path) -> None:
    path = write_files(tmp_path, layers(257))
    before = open_files()
    with pytest.raises(ParentError, match="has more than 255 parents") as caught, open_chain(path):
        pass
    assert caught.value.path == str(path)
    assert open_files() == before


def ring(*names: str) -> dict[str, ImageSpec]:
    """Describe children each of which names the next one, and the last one the first."""
    guid = small_disk().data_write_guid
    return {
        name: child_with({"relative_path": following}, data_write_guid=guid)
        for name, following in zip(names, [*names[1:], names[0]], strict=True)
    }


@pytest.mark.parametrize(
    "names", [["a.vhdx"], ["a.vhdx", "b.vhdx"], ["a.vhdx", "b.vhdx", "c.vhdx"]]
)
def test_loop_is_refused(names: list[str], tmp_path: Path) -> None:
    path = write_files(tmp_path, ring(*names))
    last = tmp_path / names[-1]
    before = open_files()
    with (
        pytest.raises(ParentCycleError, match=r"a\.vhdx: is a file of the chain already") as caught,
        open_chain(path),
    ):
        pass
    assert caught.value.path == str(last)
    assert caught.value.hint == "name the right parent with parents=[...]"
    assert open_files() == before


@pytest.mark.parametrize("link", ["hard", "symbolic"])
def test_loop_by_another_name_is_refused(link: str, tmp_path: Path) -> None:
    """R108: a file is known by device and inode."""
    path = write_files(tmp_path, {"a.vhdx": ring("a.vhdx", "link.vhdx")["a.vhdx"]})
    if link == "hard":
        (tmp_path / "link.vhdx").hardlink_to(path)
    else:
        (tmp_path / "link.vhdx").symlink_to(path)
    text = r"link\.vhdx: is a file of the chain already"
    with pytest.raises(ParentCycleError, match=text), open_chain(path):
        pass


def test_loop_by_a_named_parent_is_refused(tmp_path: Path) -> None:
    path = write_files(tmp_path, ring("a.vhdx"))
    text = "is a file of the chain already"
    with pytest.raises(ParentCycleError, match=text), open_chain(path, OpenOptions(parents=[path])):
        pass


# -- logs in chains (R104) -------------------------------------------------------------------


def test_every_image_is_replayed(tmp_path: Path) -> None:
    """Item 90: a dirty child over a dirty parent over a clean base."""
    base = base_disk()
    middle = child_of(base, RELATIVE, tag="middle", blocks={1: Block()})
    old_middle = child_of(base, RELATIVE, tag="middle")
    top = child_of(middle, ".\\middle.vhdx", tag="top", data_write_guid=same_bytes_guid(9))
    top.blocks = {2: Block(PARTIAL, sector_bits={3})}
    old_top = child_of(middle, ".\\old.vhdx", tag="top")
    files = {
        "top.vhdx": make_dirty(old_top, top, entry_count=2),
        "middle.vhdx": make_dirty(old_middle, middle),
        "base.vhdx": base,
    }
    path = write_files(tmp_path, files)
    with open_chain(path) as chain:
        states = [image.log.state for image in chain.images]
        assert states == [LogState.REPLAYED, LogState.REPLAYED, LogState.CLEAN]
        warnings = [(Path(name).name, warning.rule) for name, warning in chain.warnings]
        assert warnings == [("top.vhdx", "R120"), ("middle.vhdx", "R120")]
        is_right = chain_bytes(chain) == top.expected_disk(0, 4 * MIB)
        assert is_right


def test_dirty_parent_is_refused_on_request(tmp_path: Path) -> None:
    dirty = log_sectors(small_disk(), {4 * MIB: b"\1" * 4096})
    path = write_files(
        tmp_path, {"a.vhdx": child_with({"relative_path": RELATIVE}), "base.vhdx": dirty}
    )
    before = open_files()
    with (
        pytest.raises(CorruptImageError, match="holds updates that are not in the file") as caught,
        open_chain(path, OpenOptions(log_policy=LogPolicy.REFUSE)),
    ):
        pass
    assert caught.value.finding.rule == "R14"
    assert caught.value.path == str(tmp_path / "base.vhdx")
    assert open_files() == before
    assert read_chain(path, log_policy=LogPolicy.IGNORE)[:4] == b"root"
    assert read_chain(path)[:4] == b"\1" * 4


def test_linkage_is_compared_with_the_current_header(tmp_path: Path) -> None:
    """R39, R100: two headers with two GUIDs, the log replayed."""
    parent = small_disk()
    parent.headers[0].data_write_guid = same_bytes_guid(0x98)
    append_entries(parent.log, [[DataDescriptorSpec(4 * MIB, b"\1" * 4096)]])
    parent.log_guid = same_bytes_guid(0x44)
    path = write_files(
        tmp_path, {"a.vhdx": child_with({"relative_path": RELATIVE}), "base.vhdx": parent}
    )
    assert read_chain(path)[:4] == b"\1" * 4


# -- images that are no good parents (R104, R109) --------------------------------------------


def broken_parent(kind: str) -> ImageSpec:
    parent = small_disk()
    if kind == "corrupt":
        for header in parent.headers:
            header.checksum = 0
    elif kind == "truncated":
        parent.file_size = 4 * MIB + 4096
    elif kind == "version 2":
        for header in parent.headers:
            header.version = 2
    return parent


@pytest.mark.parametrize(
    ("kind", "error", "rule"),
    [
        ("corrupt", CorruptImageError, "R10"),
        ("truncated", TruncatedImageError, "R111"),
        ("version 2", UnsupportedImageError, "R11"),
    ],
)
@pytest.mark.parametrize("named", [False, True])
def test_broken_parent_is_an_error_of_that_file(
    kind: str,
    error: type[ImageError],
    rule: str,
    named: bool,  # noqa: FBT001
    tmp_path: Path,
) -> None:
    """R104: of what it is, and not that of a missing parent."""
    child = child_with({"relative_path": RELATIVE})
    path = write_files(tmp_path, {"a.vhdx": child, "base.vhdx": broken_parent(kind)})
    parent = tmp_path / "base.vhdx"
    before = open_files()
    with (
        pytest.raises(error, match=re.escape(str(parent))) as caught,
        open_chain(path, OpenOptions(parents=[parent] if named else [])),
    ):
        pass
    assert type(caught.value) is error
    assert (caught.value.finding.rule, caught.value.path) == (rule, str(parent))
    assert open_files() == before


def test_locator_without_the_flag_is_a_warning(tmp_path: Path) -> None:
    """R94, item 93: the disk reads alone, whatever its locator names."""
    locator = parent_locator({"parent_linkage": "no GUID"})
    path = write_files(tmp_path, {"disk.vhdx": small_disk(locator=locator, has_parent=False)})
    with open_chain(path) as chain:
        assert names_of(chain) == ["disk.vhdx"]
        assert chain_bytes(chain)[:4] == b"root"
        ((name, warning),) = chain.warnings
    assert (name, warning.rule) == (str(path), "R94")
    assert "the disk is not differencing; its parent locator is ignored" in str(warning)


# -- what is open, and for how long ----------------------------------------------------------


def test_files_are_open_inside_the_context(tmp_path: Path) -> None:
    path = write_files(tmp_path, layers(3))
    before = open_files()
    with open_chain(path) as chain:
        assert open_files() - before == {str(tmp_path / f"{n}.vhdx") for n in range(3)}
        assert len(set(chain.identities)) == 3
        assert names_of(chain) == ["2.vhdx", "1.vhdx", "0.vhdx"]
        assert chain.child.source.name == str(path)
    assert open_files() == before


def test_files_are_closed_if_the_work_fails(tmp_path: Path) -> None:
    path = write_files(tmp_path, layers(3))
    before = open_files()
    with pytest.raises(RuntimeError, match="the work"), open_chain(path):
        raise RuntimeError("the work")
    assert open_files() == before


def test_files_are_closed_if_a_parent_is_missing(tmp_path: Path) -> None:
    """Those of the chain so far, and a wrong one that was found."""
    files = layers(4)
    files["0.vhdx"] = small_disk(data_write_guid=same_bytes_guid(0x99))
    path = write_files(tmp_path, files)
    before = open_files()
    with (
        pytest.raises(ParentMismatchError, match=r"0\.vhdx: has the DataWriteGuid"),
        open_chain(path),
    ):
        pass
    assert open_files() == before
