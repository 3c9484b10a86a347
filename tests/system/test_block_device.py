"""Block devices: they hold the disk afterwards, or it is known that they do not.

Most tests need a loop device, which takes the superuser.
"""

import errno
import fcntl
import os
import stat
import struct
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.builder import KIB, MIB, Block, BlockState, ImageSpec
from tests.support.devices import DEVICE_SIZE, OLD_BYTE, Devices
from tests.support.files import has_expected_bytes
from tests.support.host import raiser
from tests.support.peers import run_as_superuser, skip_unless_ci
from tests.support.sinks import RecordingSink
from vhdx2raw import convert
from vhdx2raw.disk.virtual_disk import open_disk
from vhdx2raw.errors import OutputError
from vhdx2raw.operations.convert import ConversionResult
from vhdx2raw.output import block_device, inputs
from vhdx2raw.output.block_device import BlockDeviceSink
from vhdx2raw.output.opening import open_sink
from vhdx2raw.output.sparse_file import SparseFileSink
from vhdx2raw.output.stream import StreamSink
from vhdx2raw.source.file import FileSource

SIZE = 5 * MIB + 512
DATA = memoryview(b"some data")
IN_USE = "is in use: mounted, or held by another program"
IS_INPUT = "is the input itself"


def disk_spec() -> ImageSpec:
    """Describe data, stored zeros within data, stored zeros alone, zeros, and half a page last."""
    holes = {0: b"A" * 1000, 100_000: b"B", 3 * KIB + 512: b"C" * 512}
    blocks = {5: Block(), 0: Block(content=holes), 2: Block(content=0), 3: Block(BlockState.ZERO)}
    return ImageSpec(SIZE, MIB, {**blocks, 4: Block()})


SPEC = disk_spec()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    SPEC.write(tmp_path / "disk.vhdx")
    return tmp_path / "disk.vhdx"


@pytest.fixture
def device(devices: Devices) -> Path:
    return devices.make()


@pytest.fixture
def sink(device: Path) -> Iterator[BlockDeviceSink]:
    sink = BlockDeviceSink(device, SIZE, replace=True)
    yield sink
    sink.abort()


def convert_to(
    device: Path, path: Path, *, target_is_zero: bool = False, sparse_size: int = 4 * KIB
) -> ConversionResult:
    with open_disk(path) as disk:
        size, inputs = disk.size, disk.chain.identities
        sink = BlockDeviceSink(
            device, size, replace=True, inputs=inputs, target_is_zero=target_is_zero
        )
        result = convert(disk, sink, sparse_size=sparse_size)
        assert not sink.left_incomplete
    return result


def refuse_zeroing(monkeypatch: pytest.MonkeyPatch, number: int) -> list[tuple[int, int]]:
    """Let BLKZEROOUT fail; give the list of the (offset, length) that it will be asked for."""
    asked: list[tuple[int, int]] = []
    real_ioctl = fcntl.ioctl

    def ioctl(descriptor: int, request: int, argument: bytes) -> object:
        if request != block_device.BLKZEROOUT:
            return real_ioctl(descriptor, request, argument)
        asked.append(struct.unpack("=QQ", argument))
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "ioctl", ioctl)
    return asked


# -- what a device holds afterwards -------------------------------------------------------------


def assert_holds_the_disk(contents: bytes) -> None:
    is_right = contents[:SIZE] == SPEC.expected_disk(0, SIZE)
    assert is_right
    assert contents[SIZE:] == OLD_BYTE * (len(contents) - SIZE), (
        "what lies after the disk is changed"
    )


@pytest.mark.parametrize("sparse_size", [0, 512, 4 * KIB, MIB])
@pytest.mark.parametrize("sector_size", [512, 4096])
def test_device_holds_the_disk_and_keeps_the_rest(
    devices: Devices, path: Path, sector_size: int, sparse_size: int
) -> None:
    """Every zero is a real one, though the device was full of others, and half a sector is last."""
    device = devices.make(DEVICE_SIZE, "--sector-size", str(sector_size))
    result = convert_to(device, path, sparse_size=sparse_size)
    assert_holds_the_disk(devices.contents())
    assert result.cloned_bytes == 0
    assert (result.written_bytes == SIZE) == (sparse_size == 0)


def test_a_device_that_is_just_long_enough_is_enough(devices: Devices, path: Path) -> None:
    device = devices.make(SIZE)
    convert_to(device, path)
    assert has_expected_bytes(devices.backing, SPEC)


@pytest.mark.parametrize("number", [errno.ENOTTY, errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS])
def test_zeros_are_written_without_device_support(
    devices: Devices, device: Path, path: Path, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = refuse_zeroing(monkeypatch, number)
    with open_disk(path) as disk:
        sink = BlockDeviceSink(device, SIZE, replace=True)
        convert(disk, sink, workers=1)
    assert len(asked) == 1, "what is refused once is not asked for again"
    assert_holds_the_disk(devices.contents())


def test_target_is_zero_leaves_zeros_out(devices: Devices, device: Path, path: Path) -> None:
    convert_to(device, path, target_is_zero=True)
    contents, expected = devices.contents(), SPEC.expected_disk(0, SIZE)
    assert contents[MIB : 4 * MIB] == OLD_BYTE * (3 * MIB)
    is_right = contents[4 * MIB : SIZE] == expected[4 * MIB :]
    assert is_right
    for start in range(0, MIB, 4 * KIB):
        piece = expected[start : start + 4 * KIB]
        assert contents[start : start + 4 * KIB] == (piece if any(piece) else OLD_BYTE * 4 * KIB)


def test_sparse_size_0_writes_even_to_zeroed_target(
    devices: Devices, device: Path, path: Path
) -> None:
    convert_to(device, path, target_is_zero=True, sparse_size=0)
    assert_holds_the_disk(devices.contents())


@pytest.mark.parametrize(
    ("start", "length"),
    [
        (0, SIZE),
        (512, 100),
        (512, 8192),
        (4096, 4096),
        (4095, 4098),
        (4097, 8190),
        (SIZE - 512, 512),
        (MIB + 1, 3 * MIB),
    ],
)
@pytest.mark.parametrize("sector_size", [512, 4096])
def test_any_range_becomes_zero_and_nothing_else(
    devices: Devices, start: int, length: int, sector_size: int
) -> None:
    device = devices.make(DEVICE_SIZE, "--sector-size", str(sector_size))
    sink = BlockDeviceSink(device, SIZE, replace=True)
    sink.zero(start, length)
    sink.flush()
    sink.commit()
    after = DEVICE_SIZE - start - length
    is_right = devices.contents() == OLD_BYTE * start + bytes(length) + OLD_BYTE * after
    assert is_right


@pytest.mark.parametrize(("sector_size", "alignment"), [(512, 4 * KIB), (64 * KIB, 64 * KIB)])
def test_only_whole_pages_are_zeroed_by_the_device(
    devices: Devices,
    device: Path,
    monkeypatch: pytest.MonkeyPatch,
    sector_size: int,
    alignment: int,
) -> None:
    monkeypatch.setattr(block_device, "_sector_size_of", lambda _descriptor: sector_size)
    sink = BlockDeviceSink(device, SIZE, replace=True)
    asked = refuse_zeroing(monkeypatch, errno.EOPNOTSUPP)
    sink.zero(512, 70 * KIB + alignment)
    sink.abort()
    assert len(asked) == 1
    offset, length = asked[0]
    assert offset == alignment
    assert length == (70 * KIB + 512) // alignment * alignment


def test_what_is_written_may_begin_and_end_anywhere(
    devices: Devices, sink: BlockDeviceSink
) -> None:
    sink.write(4093, DATA)
    sink.flush()
    sink.commit()
    is_right = devices.contents() == OLD_BYTE * 4093 + DATA.tobytes() + OLD_BYTE * (
        DEVICE_SIZE - 4093 - len(DATA)
    )
    assert is_right


def test_a_short_write_is_continued(
    devices: Devices, sink: BlockDeviceSink, monkeypatch: pytest.MonkeyPatch
) -> None:
    real_pwrite = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda fd, data, place: real_pwrite(fd, data[:2], place))
    sink.write(3, DATA)
    monkeypatch.undo()
    sink.flush()
    sink.commit()
    assert devices.contents()[: 3 + len(DATA) + 1] == OLD_BYTE * 3 + DATA.tobytes() + OLD_BYTE


def test_nothing_is_cloned_to_a_device(sink: BlockDeviceSink, path: Path) -> None:
    with path.open("rb") as file:
        assert not sink.clone(0, file.fileno(), 0, 4096)
    assert not sink.left_incomplete


# -- what is refused, before anything is changed -------------------------------------------------


def refusal(device: Path, **options: object) -> OutputError:
    with pytest.raises(OutputError) as caught:
        BlockDeviceSink(device, SIZE, **{"replace": True, **options})  # type: ignore[arg-type]
    assert caught.value.path == str(device)
    return caught.value


def test_device_is_overwritten_only_with_replace(devices: Devices, device: Path) -> None:
    error = refusal(device, replace=False)
    assert error.message == "is a block device, whose contents would be lost"
    assert error.hint == "use force= to overwrite it"
    assert devices.contents() == OLD_BYTE * DEVICE_SIZE


def test_a_device_that_is_too_small_is_refused(devices: Devices) -> None:
    error = refusal(devices.make(SIZE - 512))
    assert error.message == f"is too small: it has {SIZE - 512} bytes, the disk {SIZE}"
    assert error.hint == "choose a device that is at least as long as the disk"
    assert devices.contents() == OLD_BYTE * (SIZE - 512)


def test_a_mounted_device_is_refused(devices: Devices, device: Path, tmp_path: Path) -> None:
    run_as_superuser("mkfs.ext4", "-q", device)
    folder = tmp_path / "mounted"
    folder.mkdir()
    run_as_superuser("mount", device, folder)
    try:
        before = devices.contents()
        error = refusal(device)
        is_same = devices.contents() == before
    finally:
        subprocess.run(["umount", str(folder)], check=True)
    assert error.message == IN_USE
    assert error.hint == "unmount it and every partition of it, or end what uses it; see lsblk"
    assert is_same


def test_claimed_device_is_refused_until_released(device: Path) -> None:
    first = BlockDeviceSink(device, SIZE, replace=True)
    assert refusal(device).message == IN_USE
    first.abort()
    second = BlockDeviceSink(device, SIZE, replace=True)
    assert refusal(device).message == IN_USE
    second.commit()
    BlockDeviceSink(device, SIZE, replace=True).abort()


def test_a_read_only_device_is_refused(devices: Devices) -> None:
    error = refusal(devices.make(DEVICE_SIZE, "--read-only"))
    assert error.message == "is read-only"
    assert error.hint == "if that is not a switch of the device itself, see blockdev(8)"


@pytest.mark.parametrize("number", [errno.EACCES, errno.EPERM, errno.EIO])
def test_other_host_errors_are_passed_on(
    device: Path, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "open", raiser(number))
    with pytest.raises(OSError, match=os.strerror(number)) as caught:
        BlockDeviceSink(device, SIZE, replace=True)
    assert (caught.value.errno, caught.value.filename) == (number, str(device))


@pytest.mark.parametrize("kind", ["file", "folder", "character device"])
def test_what_is_no_block_device_is_refused(kind: str, tmp_path: Path) -> None:
    target = {"file": tmp_path / "out.img", "folder": tmp_path}.get(kind, Path(os.devnull))
    (tmp_path / "out.img").write_bytes(b"kept")
    assert refusal(target).message == "is not a block device"
    assert (tmp_path / "out.img").read_bytes() == b"kept"


def test_a_failure_to_open_holds_no_descriptor(devices: Devices) -> None:
    device = devices.make(SIZE - 512)
    before = set(Path("/proc/self/fd").iterdir())
    refusal(device)
    assert set(Path("/proc/self/fd").iterdir()) == before


def test_the_device_is_claimed_and_not_inherited(
    device: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[int] = []
    real_open = os.open

    def recording_open(path: str | Path, flags: int) -> int:
        opened.append(flags)
        return real_open(path, flags)

    monkeypatch.setattr(os, "open", recording_open)
    BlockDeviceSink(device, SIZE, replace=True).abort()
    [flags] = opened
    assert flags & os.O_EXCL
    assert flags & os.O_CLOEXEC
    assert not flags & os.O_CREAT


# -- never an input ------------------------------------------------------------------------------


def identities_of(path: Path) -> list[tuple[int, int]]:
    source = FileSource(path)
    source.close()
    return [(0, 0), source.identity]


def test_input_device_is_refused_under_every_name(device: Path, tmp_path: Path) -> None:
    link, node = tmp_path / "link", tmp_path / "node"
    link.symlink_to(device)
    os.mknod(node, stat.S_IFBLK | 0o600, device.stat().st_rdev)
    for name in (device, link, node):
        error = refusal(name, inputs=identities_of(device))
        assert (error.message, error.hint) == (IS_INPUT, "choose another name for the output")


def test_stdout_to_the_input_device_is_refused(device: Path, tmp_path: Path) -> None:
    node = tmp_path / "node"
    os.mknod(node, stat.S_IFBLK | 0o600, device.stat().st_rdev)
    with node.open("r+b") as stream, pytest.raises(OutputError, match=IS_INPUT):
        StreamSink(stream, inputs=identities_of(device))


def test_a_loop_device_on_the_input_is_refused(
    devices: Devices, path: Path, tmp_path: Path
) -> None:
    before = path.read_bytes()
    hard_link = tmp_path / "hard link.vhdx"
    hard_link.hardlink_to(path)
    device = devices.attach(path)
    for name in (path, hard_link):
        assert refusal(device, inputs=identities_of(name)).message == IS_INPUT
    assert path.read_bytes() == before


def test_a_disk_and_its_partitions_are_the_same_bytes(devices: Devices) -> None:
    """Two partitions of one disk are not."""
    disk = devices.make(DEVICE_SIZE, "--partscan")
    run_as_superuser("addpart", disk, "1", "2048", "4096")
    run_as_superuser("addpart", disk, "2", "8192", "4096")
    first, second = (Path(f"{disk}p{number}") for number in (1, 2))
    if not (first.exists() and second.exists()):
        skip_unless_ci("the nodes of partitions do not appear by themselves here")
    for target, source in ((disk, first), (second, disk), (first, first)):
        assert refusal(target, inputs=identities_of(source)).message == IS_INPUT
    assert refusal(first, inputs=identities_of(devices.backing)).message == IS_INPUT
    assert "is too small" in refusal(first, inputs=identities_of(second)).message


def test_input_device_is_refused_without_sysfs(
    device: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A container may have no /sys."""
    monkeypatch.setattr(inputs, "SYSTEM_DEVICES", str(tmp_path / "nowhere"))
    assert refusal(device, inputs=identities_of(device)).message == IS_INPUT
    BlockDeviceSink(device, SIZE, replace=True).abort()


# -- failures on the way -------------------------------------------------------------------------


CHANGES: dict[str, Callable[[BlockDeviceSink], None]] = {
    "written": lambda sink: sink.write(0, DATA),
    "zeroed": lambda sink: sink.zero(0, 4096),
    "zeros written": lambda sink: sink.zero(1, 1),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
@pytest.mark.parametrize("ends_well", [True, False])
def test_device_is_incomplete_from_change_to_commit(
    device: Path, change: Callable[[BlockDeviceSink], None], *, ends_well: bool
) -> None:
    sink = BlockDeviceSink(device, SIZE, replace=True)
    states = [sink.left_incomplete]
    change(sink)
    states.append(sink.left_incomplete)
    if ends_well:
        sink.commit()
    sink.abort()
    states.append(sink.left_incomplete)
    assert states == [False, True, not ends_well]


def test_untouched_device_is_not_incomplete(device: Path) -> None:
    sink = BlockDeviceSink(device, SIZE, replace=True, target_is_zero=True)
    sink.zero(0, SIZE)
    sink.abort()
    assert not sink.left_incomplete


@pytest.mark.parametrize("call", ["pwrite", "fsync", "close"])
def test_a_failure_of_the_host_names_the_device(
    device: Path, path: Path, call: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open_disk(path) as disk:
        sink = BlockDeviceSink(device, SIZE, replace=True)
        descriptor = sink._descriptor
        monkeypatch.setattr(os, call, raiser(errno.EIO))
        with pytest.raises(OSError, match="Input/output error") as caught:
            convert(disk, sink)
        monkeypatch.undo()
    if call == "close":
        os.close(descriptor)
    assert caught.value.filename == str(device)
    assert sink.left_incomplete


def test_full_thin_volume_is_an_output_error(
    sink: BlockDeviceSink, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A thin volume can be longer than its storage."""
    monkeypatch.setattr(os, "pwrite", raiser(errno.ENOSPC))
    with pytest.raises(OutputError, match="cannot be written: No space left on device") as caught:
        sink.write(0, DATA)
    assert caught.value.hint == "make room, or write to another place"
    assert sink.left_incomplete


@pytest.mark.parametrize(
    ("number", "kind"), [(errno.EIO, OSError), (errno.ENOSPC, OutputError)], ids=["I/O", "no space"]
)
def test_a_device_that_fails_to_make_zeros_fails(
    sink: BlockDeviceSink, number: int, kind: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    refuse_zeroing(monkeypatch, number)
    with pytest.raises(kind, match=os.strerror(number)):
        sink.zero(0, MIB)
    assert sink.left_incomplete


def test_device_that_loses_writes_fails_at_the_end(
    devices: Devices, path: Path, tmp_path: Path
) -> None:
    """The writes themselves succeed: they only reach the cache."""
    folder = tmp_path / "small"
    folder.mkdir()
    run_as_superuser("mount", "-t", "tmpfs", "-o", f"size={MIB}", "none", folder)
    try:
        thin = folder / "thin.bin"
        with thin.open("wb") as file:
            file.truncate(DEVICE_SIZE)
        device = devices.attach(thin)
        with open_disk(path) as disk:
            sink = BlockDeviceSink(device, SIZE, replace=True, target_is_zero=True)
            with pytest.raises((OSError, OutputError)) as caught:
                convert(disk, sink)
        assert str(device) in str(caught.value)
        assert sink.left_incomplete
    finally:
        devices.detach()
        subprocess.run(["umount", str(folder)], check=True)


# -- which sink a path gets ----------------------------------------------------------------------


def test_device_and_links_get_the_device_sink(
    devices: Devices, device: Path, tmp_path: Path
) -> None:
    link = tmp_path / "by-id"
    link.symlink_to(device)
    for name in (device, str(device), link):
        sink = open_sink(name, SIZE, replace=True, target_is_zero=True)
        assert isinstance(sink, BlockDeviceSink)
        sink.zero(0, SIZE)
        sink.commit()
    assert devices.contents() == OLD_BYTE * DEVICE_SIZE
    with pytest.raises(OutputError, match="whose contents would be lost"):
        open_sink(device, SIZE)
    with pytest.raises(OutputError, match=IS_INPUT):
        open_sink(device, SIZE, replace=True, inputs=identities_of(device))


def test_every_other_name_gets_the_sink_for_files(tmp_path: Path) -> None:
    target = tmp_path / "out.img"
    sink = open_sink(str(target), SIZE, target_is_zero=True)
    assert isinstance(sink, SparseFileSink)
    sink.commit()
    assert target.stat().st_size == SIZE
    with pytest.raises(OutputError, match="exists already"):
        open_sink(target, SIZE)
    with pytest.raises(OutputError, match=IS_INPUT):
        open_sink(target, SIZE, replace=True, inputs=identities_of(target))
    open_sink(target, 512, replace=True).commit()
    assert target.stat().st_size == 512
    with pytest.raises(OutputError, match="exists and is not a regular file"):
        open_sink(os.devnull, SIZE, replace=True)
    with pytest.raises(OutputError, match="cannot be written: File name too long"):
        open_sink(tmp_path / ("n" * 300), SIZE)


# -- long zeros ----------------------------------------------------------------------------------


def test_zeroing_comes_in_limited_ranges_with_progress(tmp_path: Path) -> None:
    """So that a signal takes effect soon, and the bar moves."""
    size = 200 * MIB + 512
    spec = ImageSpec(size, 2 * MIB, {0: Block(), 70: Block(content=0)})
    spec.write(tmp_path / "disk.vhdx")
    sink = RecordingSink(zeroing_is_work=True)
    steps: list[tuple[int, int]] = []
    with open_disk(tmp_path / "disk.vhdx") as disk:
        convert(disk, sink, progress=lambda *step: steps.append(step))
    assert max(length for name, _, length in sink.ranges if name == "zero") == 64 * MIB
    assert steps[-1] == (size, size)
    is_right = sink.contents(size) == spec.expected_disk(0, size)
    assert is_right


@pytest.mark.parametrize("target_is_zero", [True, False])
def test_zeros_are_work_unless_they_are_there_already(
    device: Path, *, target_is_zero: bool
) -> None:
    sink = BlockDeviceSink(device, SIZE, replace=True, target_is_zero=target_is_zero)
    assert sink.zeroing_is_work != target_is_zero
    sink.abort()
