"""How a mount begins and ends, and what becomes of readers when something fails."""

import errno
import os
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.support.builder import MIB, Block, ImageSpec
from tests.support.cli import run_program
from tests.support.contents import record
from tests.support.files import has_expected_bytes
from tests.support.mounts import (
    PATIENCE,
    folder_for_mounts,
    is_mounted,
    mounted,
    servers_of,
    start,
    wait_until,
)
from tests.support.partitions import disk_with
from tests.support.peers import needs_superuser

SIZE = 8 * MIB
SPEC = ImageSpec(SIZE, MIB, {index: Block() for index in range(8) if index != 5})
SLOW = """
import os, time
real = os.preadv
def preadv(descriptor, buffers, offset):
    if os.path.exists({mark!r}):
        time.sleep(1.5)
    return real(descriptor, buffers, offset)
os.preadv = preadv
"""
BROKEN = """
import os
real = os.preadv
def preadv(descriptor, buffers, offset):
    if offset < {end} and {start} < offset + sum(map(len, buffers)):
        raise OSError(5, "Input/output error")
    return real(descriptor, buffers, offset)
os.preadv = preadv
"""
LOG = """
import syslog
def write(level, text):
    with open({log!r}, "a") as file:
        print(text, file=file)
syslog.syslog = write
"""

DEVICE_REMEDY = (
    "load it with `modprobe fuse`; a container needs that device and the capability SYS_ADMIN"
)


@pytest.fixture
def image(tmp_path: Path) -> Path:
    SPEC.write(tmp_path / "disk.vhdx")
    return tmp_path / "disk.vhdx"


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    with folder_for_mounts(tmp_path / "mnt") as path:
        yield path


def read_at(path: Path, offset: int, size: int = 4096) -> bytes:
    """Read past what the kernel keeps of a file that is opened anew."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        return os.pread(descriptor, size, offset)
    finally:
        os.close(descriptor)


# -- to the background, and back ----------------------------------------------------------------


def test_it_goes_to_the_background_once_it_is_mounted(image: Path, folder: Path) -> None:
    """What waits for its output does not wait for it to end."""
    outcome = run_program("mount", image.name, folder.name, cwd=image.parent)
    assert (outcome.exit_code, outcome.out, outcome.err) == (0, "", "")
    assert is_mounted(folder)
    assert has_expected_bytes(folder / "disk.img", SPEC)
    (server,) = servers_of_name(folder.name)
    assert os.readlink(f"/proc/{server}/cwd") == "/"  # noqa: PTH115
    assert {os.readlink(f"/proc/{server}/fd/{number}") for number in range(3)} == {"/dev/null"}  # noqa: PTH115
    subprocess.run(["umount", folder], check=True)
    wait_until(lambda: not servers_of_name(folder.name), "the program has ended")
    assert os.listdir(folder) == []  # noqa: PTH208


def servers_of_name(name: str) -> list[int]:
    """Give what was asked to mount something in a folder of this relative name, under it."""
    return servers_of(Path(name))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
@pytest.mark.parametrize("foreground", [True, False])
def test_a_signal_unmounts(
    image: Path, folder: Path, number: signal.Signals, *, foreground: bool
) -> None:
    if foreground:
        with mounted(image, folder) as mount:
            mount.process.send_signal(number)
            assert mount.wait() == ""
        return
    assert run_program("mount", image, folder).exit_code == 0
    (server,) = servers_of(folder)
    os.kill(server, number)
    wait_until(lambda: not servers_of(folder), "the program has ended")
    assert not is_mounted(folder)


def test_a_damaged_disk_is_mounted_with_the_exit_code_for_it(image: Path, folder: Path) -> None:
    os.truncate(image, image.stat().st_size - MIB)
    outcome = run_program("mount", "--salvage", image, folder)
    assert outcome.exit_code == 3
    assert "damaged" in outcome.err
    assert is_mounted(folder)


def test_any_name_stands_in_the_table_of_mounts(folder: Path, tmp_path: Path) -> None:
    image = tmp_path / "a,b \\c=ü.vhdx"
    SPEC.write(image)
    assert run_program("mount", image.name, folder, cwd=tmp_path).exit_code == 0
    lines = [line.split() for line in Path("/proc/mounts").read_text().splitlines()]
    (name,) = (words[0] for words in lines if words[1] == str(folder))
    assert name.replace("\\040", " ").replace("\\134", "\\") == str(image)


def test_others_look_in_only_if_they_may(image: Path) -> None:
    needs_superuser()
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        for options, is_allowed in (([], False), (["--allow-other"], True)):
            with mounted(image, Path(name) / "mnt", *options) as mount:
                read = ["head", "--bytes=8", str(mount.disk)]
                done = subprocess.run(
                    read, check=False, capture_output=True, user=65534, group=65534, extra_groups=[]
                )
                assert (done.returncode == 0) == is_allowed
                assert done.stdout == (SPEC.expected_disk(0, 8) if is_allowed else b"")


def test_it_says_where_it_is_mounted_if_asked(image: Path, folder: Path) -> None:
    outcome = run_program("mount", "-v", image, folder)
    assert outcome.err == f"vhdx2raw: {image} is mounted; to end that: umount {folder}\n"


def test_what_is_wrong_is_one_line_and_an_exit_code(image: Path, folder: Path) -> None:
    cases = {
        (image, folder / "none"): (7, f"{folder / 'none'}: is not a folder that is there"),
        (image, image): (7, f"{image}: is not a folder that is there"),
        (image, image.parent): (7, f"{image.parent}: is not empty"),
        (folder / "none.vhdx", folder): (8, f"{folder / 'none.vhdx'}: No such file or directory"),
        (Path(__file__), folder): (4, f"{__file__}: file"),
    }
    for (source, place), (exit_code, text) in cases.items():
        outcome = run_program("mount", source, place)
        assert outcome.exit_code == exit_code
        assert outcome.err.startswith(f"vhdx2raw: {text}")
        assert len([line for line in outcome.err_lines if "hint" not in line]) == 1
    assert not is_mounted(folder)


def test_an_interruption_before_it_is_mounted_ends_both_processes(
    image: Path, folder: Path, tmp_path: Path
) -> None:
    patch = (
        "import time, pathlib, vhdx2raw.cli.commands.mount as command\n"
        f"mark = pathlib.Path({str(tmp_path / 'mark')!r})\n"
        "command.mount_disk = lambda *_, **__: (mark.touch(), time.sleep(600))\n"
    )
    with start(["mount", str(image), str(folder)], patch) as process:
        wait_until((tmp_path / "mark").exists, "it would be mounted")
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=PATIENCE)
    assert (process.returncode, said) == (130, "vhdx2raw: interrupted\n")
    children = Path("/proc").glob("[0-9]*/cmdline")
    wait_until(lambda: not any(is_about(path, folder) for path in children), "the other has ended")


def is_about(path: Path, folder: Path) -> bool:
    with suppress(OSError):
        return str(folder).encode() in path.read_bytes()
    return False


# -- what is missing ----------------------------------------------------------------------------

MISSING = {
    "import sys; sys.modules['mfusepy'] = None": (
        "mounting takes the package mfusepy",
        "install it: pip install 'vhdx2raw[mount]'",
    ),
    "import ctypes.util; ctypes.util.find_library = lambda _: None": (
        "the library of FUSE cannot be used: Unable to find libfuse",
        "install FUSE, such as with: apt install fuse3",
    ),
    "import vhdx2raw.operations.mount as mount; mount.DEVICE = '/dev/none'": (
        "FUSE is not in the kernel: there is no /dev/none",
        DEVICE_REMEDY,
    ),
}


@pytest.mark.parametrize("patch", MISSING)
def test_what_is_missing_is_named(image: Path, folder: Path, patch: str) -> None:
    problem, hint = MISSING[patch]
    with start(["mount", str(image), str(folder)], patch) as process:
        _, said = process.communicate(timeout=PATIENCE)
    assert process.returncode == 8
    assert said == f"vhdx2raw: {problem}\nvhdx2raw: hint: {hint}\n"


def test_a_refusal_of_fuse_is_one_line(image: Path, folder: Path) -> None:
    """The library says why, in words of its own and at a place of its own."""
    patch = "import mfusepy; mfusepy.FUSE.OPTIONS += (('subtype', '--no-such-option'),)"
    with start(["mount", str(image), str(folder)], patch) as process:
        _, said = process.communicate(timeout=PATIENCE)
    assert process.returncode == 8
    assert said.startswith(f"vhdx2raw: {folder}: cannot be mounted: fuse: unknown option")
    assert said.count("\n") == 1


def test_the_mount_of_a_killed_program_is_named(image: Path, folder: Path) -> None:
    with mounted(image, folder) as mount:
        descriptor = os.open(mount.disk, os.O_RDONLY)
        assert len(os.pread(descriptor, 10, 0)) == 10
        mount.process.kill()
        mount.process.wait(PATIENCE)
        with pytest.raises(OSError, match=r"not connected|abort"):
            os.pread(descriptor, 4096, 7 * MIB)
        with suppress(OSError):  # told once more
            os.close(descriptor)
        outcome = run_program("mount", image, folder)
        assert outcome.exit_code == 8
        assert outcome.err_lines == [
            f"vhdx2raw: {folder}: was mounted by a program that has ended",
            "vhdx2raw: hint: unmount it first: fusermount3 -u, or umount",
        ]
    with mounted(image, folder) as mount:
        assert has_expected_bytes(mount.disk, SPEC)


# -- under load ---------------------------------------------------------------------------------


class Readers:
    """Threads that read all of a disk again and again, past the page cache, until that fails."""

    def __init__(self, path: Path) -> None:
        self.errors: list[int | None] = []
        self.wrong: list[int] = []
        self.reads = 0
        self._threads = [threading.Thread(target=self._read, args=(path, i)) for i in range(4)]
        for thread in self._threads:
            thread.start()

    def _read(self, path: Path, number: int) -> None:
        expected = SPEC.expected_disk(0, SIZE)
        offset = number * MIB
        try:
            descriptor = os.open(path, os.O_RDONLY)
            while True:
                os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
                data = os.pread(descriptor, 256 * 1024, offset)
                if not expected.startswith(data, offset):  # fewer, if the rest fails
                    self.wrong.append(offset)
                self.reads += 1
                offset = (offset + 256 * 1024) % SIZE
        except OSError as error:
            self.errors.append(error.errno)

    def are_busy(self) -> bool:
        return self.reads > 40

    def wait(self) -> None:
        for thread in self._threads:
            thread.join(PATIENCE)
            assert not thread.is_alive(), "a reader hangs"
        assert self.wrong == []
        assert len(self.errors) == 4


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_readers_get_an_error_when_the_program_ends(
    image: Path, folder: Path, number: signal.Signals
) -> None:
    with mounted(image, folder) as mount:
        readers = Readers(mount.disk)
        wait_until(readers.are_busy, "the readers are busy")
        mount.process.send_signal(number)
        readers.wait()
        if number == signal.SIGTERM:
            assert mount.wait() == ""


def test_unmounting_under_load_is_refused_or_lazy(image: Path, folder: Path) -> None:
    with mounted(image, folder) as mount:
        readers = Readers(mount.disk)
        wait_until(readers.are_busy, "the readers are busy")
        done = subprocess.run(
            ["fusermount3", "-u", folder], check=False, capture_output=True, text=True
        )
        assert done.returncode == 1
        assert "busy" in done.stderr
        subprocess.run(["fusermount3", "-u", "-z", folder], check=True)
        assert not is_mounted(folder)
        before = readers.reads
        wait_until(lambda: readers.reads > before + 20, "they read on")
        mount.process.send_signal(signal.SIGTERM)
        readers.wait()
        mount.wait()  # the library of FUSE says that there was nothing left to unmount


def test_a_slow_source_holds_nobody_longer_than_it_takes(
    image: Path, folder: Path, tmp_path: Path
) -> None:
    mark = tmp_path / "slow"
    with mounted(image, folder, patch=SLOW.format(mark=str(mark))) as mount:
        mark.touch()
        ended: list[object] = []

        def read() -> None:
            try:
                ended.append(read_at(mount.disk, 3 * MIB) == SPEC.expected_disk(3 * MIB, 4096))
            except OSError as error:
                ended.append(error.errno)

        reader = threading.Thread(target=read)
        reader.start()
        time.sleep(0.5)
        mount.process.send_signal(signal.SIGTERM)
        reader.join(PATIENCE)
        assert ended in ([True], [errno.ENOTCONN], [errno.ECONNABORTED])
        assert mount.wait() == ""


# -- failures of the source ---------------------------------------------------------------------


def test_what_cannot_be_read_is_an_error_and_a_line(image: Path, folder: Path) -> None:
    start_of_bad = SPEC.block_file_offset(3) + 64 * 1024
    patch = BROKEN.format(start=start_of_bad, end=start_of_bad + 512)
    with mounted(image, folder, patch=patch) as mount:
        descriptor = os.open(mount.disk, os.O_RDONLY | os.O_DIRECT)
        with pytest.raises(OSError, match="Input/output error"):
            os.preadv(descriptor, [aligned(4096)], 3 * MIB + 64 * 1024)
        buffer = aligned(4096)
        os.preadv(descriptor, [buffer], 3 * MIB)
        assert buffer == SPEC.expected_disk(3 * MIB, 4096)
        os.close(descriptor)
        said = mount.end()
    words = "disk.img: 4096 bytes at 0x310000 cannot be read"
    assert said == f"vhdx2raw: {words}: {image}: Input/output error\n"


def aligned(size: int) -> memoryview:
    """Give a buffer for reads past the page cache."""
    import mmap  # noqa: PLC0415

    return memoryview(mmap.mmap(-1, size))


def test_a_partition_table_that_cannot_be_read_is_a_failure(folder: Path, tmp_path: Path) -> None:
    """What is said of it is not taken for words of the library of FUSE."""
    spec = disk_with({0: record((0x05, 6144, 2048)), 3 * MIB: record((0x83, 64, 64))})
    spec.write(tmp_path / "disk.vhdx")
    start_of_bad = spec.block_file_offset(3)
    patch = BROKEN.format(start=start_of_bad, end=start_of_bad + 512)
    with start(["mount", str(tmp_path / "disk.vhdx"), str(folder)], patch) as process:
        _, said = process.communicate(timeout=PATIENCE)
    assert process.returncode == 8
    assert said == f"vhdx2raw: {tmp_path / 'disk.vhdx'}: Input/output error\n"


def test_the_background_writes_to_the_log_of_the_system(
    image: Path, folder: Path, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    start_of_bad = SPEC.block_file_offset(3)
    patch = BROKEN.format(start=start_of_bad, end=start_of_bad + 512) + LOG.format(log=str(log))
    with start(["mount", str(image), str(folder)], patch) as process:
        assert process.wait(PATIENCE) == 0
        descriptor = os.open(folder / "disk.img", os.O_RDONLY | os.O_DIRECT)
        with pytest.raises(OSError, match="Input/output error"):
            os.preadv(descriptor, [aligned(4096)], 3 * MIB)
        os.close(descriptor)
        subprocess.run(["fusermount3", "-u", folder], check=True)
    words = "disk.img: 4096 bytes at 0x300000 cannot be read"
    assert log.read_text() == f"{words}: {image}: Input/output error\n"


def test_a_bad_sector_of_a_salvaged_disk_is_zeros_and_a_line(image: Path, folder: Path) -> None:
    start_of_bad = SPEC.block_file_offset(3)
    patch = BROKEN.format(start=start_of_bad, end=start_of_bad + 512)
    with mounted(image, folder, "--salvage", patch=patch) as mount:
        expected = bytes(512) + SPEC.expected_disk(3 * MIB + 512, 4096 - 512)
        descriptor = os.open(mount.disk, os.O_RDONLY | os.O_DIRECT)
        buffer = aligned(4096)
        os.preadv(descriptor, [buffer], 3 * MIB)
        os.close(descriptor)
        assert buffer == expected
        said = mount.end()
    words = "not all of 4096 bytes at 0x300000 can be read; what is lost is zeros"
    assert said == f"vhdx2raw: disk.img: {words}\n"


@pytest.mark.parametrize("how", ["written", "cut off", "put back"])
def test_a_source_that_changes_cannot_be_read_from_then_on(
    image: Path, folder: Path, how: str
) -> None:
    status = image.stat()
    with mounted(image, folder) as mount:
        descriptor = os.open(mount.disk, os.O_RDONLY)
        assert os.pread(descriptor, 4096, 0) == SPEC.expected_disk(0, 4096)
        if how == "cut off":
            os.truncate(image, status.st_size - 4 * MIB)
        else:
            with image.open("r+b") as file:
                file.seek(SPEC.block_file_offset(6))
                file.write(b"new")
        if how == "put back":
            os.utime(image, ns=(status.st_atime_ns, status.st_mtime_ns))
        for _ in range(3):
            with pytest.raises(OSError, match="Input/output error"):
                os.pread(descriptor, 4096, 7 * MIB)
        with pytest.raises(OSError, match="Input/output error"):
            mount.disk.open("rb")
        os.close(descriptor)
        said = mount.end()
    lines = [line for line in said.splitlines() if "nothing more can be read" in line]
    assert len(lines) == 1
    assert "was changed while it was read" in lines[0]


def test_a_new_name_of_the_source_is_no_change(image: Path, folder: Path) -> None:
    with mounted(image, folder) as mount:
        image.rename(image.with_name("moved.vhdx"))
        assert has_expected_bytes(mount.disk, SPEC)
        assert mount.end() == ""
