"""The plugin for nbdkit, as nbdkit calls it; `truth/test_nbd.py` has nbdkit itself."""

import errno
import importlib
import mmap
import runpy
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

import vhdx2raw
from tests.support.builder import MIB, Block, BlockState, ImageSpec, child_of
from tests.support.files import write_files
from tests.support.nbd import stored_map
from tests.support.partitions import gpt_disk

NAME = "vhdx2raw.integrations.nbdkit"
PLUGIN = Path(vhdx2raw.__file__).parent / "integrations/nbdkit.py"
REQ_ONE, OTHER_FLAG = 4, 1
HOLE_OF_ZEROS = 3
READ_ONLY, NO_TLS = True, False
"""What nbdkit says of a connection."""


class Nbdkit(ModuleType):
    """What nbdkit offers to a plugin, and what the plugin has said."""

    THREAD_MODEL_PARALLEL = 3
    EXTENT_HOLE = 1
    EXTENT_ZERO = 2
    FLAG_REQ_ONE = REQ_ONE

    def __init__(self) -> None:
        super().__init__("nbdkit")
        self.asked = ""
        self.errors: list[int] = []

    def export_name(self) -> str:
        return self.asked

    def set_error(self, number: int) -> None:
        self.errors.append(number)


@pytest.fixture
def nbdkit(monkeypatch: pytest.MonkeyPatch) -> Nbdkit:
    nbdkit = Nbdkit()
    monkeypatch.setitem(sys.modules, "nbdkit", nbdkit)
    return nbdkit


@pytest.fixture
def plugin(nbdkit: Nbdkit, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    monkeypatch.delitem(sys.modules, NAME, raising=False)
    plugin = importlib.import_module(NAME)
    yield plugin
    for file in plugin.Served.exports.values():
        file.close()
    del sys.modules[NAME]


def opened(plugin: ModuleType, path: Path) -> vhdx2raw.VirtualDisk:
    """Go through what nbdkit calls before the first read; give the handle of the disk."""
    plugin.config("file", str(path))
    plugin.config_complete()
    plugin.get_ready()
    plugin.after_fork()
    disk: vhdx2raw.VirtualDisk = plugin.open(READ_ONLY)
    return disk


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return write_files(tmp_path, {"disk.vhdx": gpt_disk()})


# -- before it serves ---------------------------------------------------------------------------


def test_words_are_read_and_the_disk_is_opened(plugin: ModuleType, tmp_path: Path) -> None:
    base = ImageSpec(4 * MIB, MIB, {1: Block()})
    child = child_of(base, "elsewhere.vhdx", blocks={2: Block()})
    path = write_files(tmp_path, {"child.vhdx": child, "base.vhdx": base})
    plugin.config("parent", str(tmp_path / "base.vhdx"))
    disk = opened(plugin, path)
    assert disk.files == (str(path), str(tmp_path / "base.vhdx"))
    assert (plugin.API_VERSION, plugin.thread_model()) == (2, 3)
    assert plugin.get_size(disk) == 4 * MIB
    assert plugin.can_multi_conn(disk) is True
    assert plugin.block_size(disk) == (1, 4096, 64 * MIB)


def test_a_missing_file_or_an_unknown_key_is_refused(plugin: ModuleType) -> None:
    with pytest.raises(ValueError, match="file=IMAGE is missing"):
        plugin.config_complete()
    with pytest.raises(ValueError, match="there is no key 'files'"):
        plugin.config("files", "disk.vhdx")


@pytest.mark.slow
def test_files_are_opened_before_nbdkit_forks_and_urls_after_it(
    plugin: ModuleType, path: Path
) -> None:
    plugin.config("file", "http://localhost/disk.vhdx")
    plugin.get_ready()
    assert plugin.Served.exports == {}
    with pytest.raises((vhdx2raw.Vhdx2rawError, OSError)):
        plugin.after_fork()
    plugin.config("file", str(path))
    plugin.get_ready()
    disk = plugin.Served.exports["disk"]
    plugin.after_fork()
    assert plugin.Served.exports["disk"] is disk


def test_a_python_that_is_too_old_is_refused_in_one_line(
    nbdkit: Nbdkit, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(sys, "version_info", (3, 9, 1))
        with pytest.raises(
            SystemExit, match=r"^vhdx2raw needs Python 3\.10 or newer; that .* 3\.9$"
        ):
            runpy.run_path(str(PLUGIN), run_name="__main__")


# -- exports ------------------------------------------------------------------------------------


def test_exports_are_the_disk_and_its_partitions(
    plugin: ModuleType, nbdkit: Nbdkit, path: Path
) -> None:
    disk = opened(plugin, path)
    names = [name for name, _ in plugin.list_exports(READ_ONLY, NO_TLS)]
    assert names == ["disk", "p1", "p2", "p3"]
    assert plugin.default_export(READ_ONLY, NO_TLS) == "disk"
    assert plugin.export_description(disk) == "dynamic disk"
    nbdkit.asked = "disk"
    assert plugin.open(READ_ONLY) is disk
    nbdkit.asked = "p2"
    root = plugin.open(READ_ONLY)
    assert plugin.get_size(root) == (14002 - 2051) * 512
    assert plugin.export_description(root) == "partition 2, Linux filesystem"


def test_an_unknown_export_is_refused(plugin: ModuleType, nbdkit: Nbdkit, path: Path) -> None:
    opened(plugin, path)
    nbdkit.asked = "p9"
    with pytest.raises(ValueError, match="there is no export 'p9', only disk, p1, p2, p3"):
        plugin.open(READ_ONLY)
    assert nbdkit.errors == [errno.ENOENT]


# -- reading ------------------------------------------------------------------------------------


def test_a_buffer_is_filled(plugin: ModuleType, path: Path) -> None:
    disk = opened(plugin, path)
    buffer = bytearray(1000)
    plugin.pread(disk, memoryview(buffer), MIB - 500, 0)
    assert buffer == gpt_disk().expected_disk(MIB - 500, 1000)


def test_a_changed_source_is_an_input_output_error_from_then_on(
    plugin: ModuleType, nbdkit: Nbdkit, path: Path
) -> None:
    disk = opened(plugin, path)
    with path.open("r+b") as file:
        file.seek(5 * MIB)
        file.write(b"new")
    for number in range(1, 3):
        with pytest.raises(vhdx2raw.SourceChangedError, match="it was written to"):
            plugin.pread(disk, memoryview(bytearray(512)), 0, 0)
        assert nbdkit.errors == [errno.EIO] * number
    with pytest.raises(vhdx2raw.SourceChangedError, match="it was written to"):
        plugin.extents(disk, MIB, 0, 0)
    assert nbdkit.errors == [errno.EIO] * 3


def test_a_write_to_a_mapping_is_noticed(plugin: ModuleType, path: Path) -> None:
    with path.open("r+b") as file, mmap.mmap(file.fileno(), 0) as mapping:
        mapping[5 * MIB] = 1  # the page waits to be stored from now on
        disk = opened(plugin, path)
        mapping[5 * MIB] = 2
        with pytest.raises(vhdx2raw.SourceChangedError, match="it was written to"):
            plugin.pread(disk, memoryview(bytearray(512)), 0, 0)


def scattered() -> ImageSpec:
    """Describe data and zeros by turns; two blocks are in another order in the file."""
    blocks = {1: Block(), 0: Block(), 3: Block(BlockState.ZERO), 4: Block()}
    return ImageSpec(7 * MIB + 512, MIB, blocks)


def map_from(
    plugin: ModuleType, disk: vhdx2raw.VirtualDisk, flags: int
) -> list[tuple[int, int, bool]]:
    """Ask on and on, as a client does; give the map of the disk."""
    found: list[tuple[int, int, bool]] = []
    offset = 0
    while offset < disk.size:
        for start, length, kind in plugin.extents(disk, disk.size - offset, offset, flags):
            assert kind in (0, HOLE_OF_ZEROS)
            assert start == offset
            offset += length
            continues = found and found[-1][2] is (kind == 0)
            first, before, _ = found.pop() if continues else (start, 0, False)
            found.append((first, before + length, kind == 0))
    return found


@pytest.mark.parametrize("flags", [0, REQ_ONE])
@pytest.mark.parametrize("most", [1, 2, 4096])
def test_extents_tile_the_disk_however_many_fit_into_an_answer(
    plugin: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, most: int, flags: int
) -> None:
    monkeypatch.setattr(plugin, "MAX_EXTENTS", most)
    disk = opened(plugin, write_files(tmp_path, {"disk.vhdx": scattered()}))
    assert map_from(plugin, disk, flags) == stored_map(scattered())
    assert len(plugin.extents(disk, disk.size, 0, flags)) <= most


def test_neighbours_of_one_kind_are_one_extent(plugin: ModuleType, tmp_path: Path) -> None:
    disk = opened(plugin, write_files(tmp_path, {"disk.vhdx": scattered()}))
    everything = plugin.extents(disk, disk.size, 0, OTHER_FLAG)
    assert [length for _, length, _ in everything] == [2 * MIB, 2 * MIB, MIB, 2 * MIB + 512]
    assert plugin.extents(disk, disk.size, 0, REQ_ONE) == [(0, 2 * MIB, 0)]
    assert plugin.extents(disk, MIB, MIB + 512, 0) == [
        (MIB + 512, MIB - 512, 0),
        (2 * MIB, 512, HOLE_OF_ZEROS),
    ]


# -- the log ------------------------------------------------------------------------------------


def test_what_is_expected_is_logged_in_one_line(plugin: ModuleType, tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No such file") as caught:
        opened(plugin, tmp_path / "missing.vhdx")
    lines = plugin._format_for_log(caught.type, caught.value, caught.tb)
    assert lines == [f"[Errno 2] No such file or directory: '{tmp_path / 'missing.vhdx'}'"]


def test_a_fault_of_the_program_is_logged_in_full(plugin: ModuleType) -> None:
    with pytest.raises(AttributeError) as caught:
        plugin.get_size(None)
    text = "".join(plugin._format_for_log(caught.type, caught.value, caught.tb))
    assert text.startswith("Traceback (most recent call last):\n")
    assert "'NoneType' object has no attribute 'size'" in text
