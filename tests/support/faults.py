"""The operating system as the package sees it: every call counted, and any of them spoiled.

`Host` takes the place of the functions of `os`, `fcntl` and `pathlib.Path` that reach the host.
It counts those calls that the package makes, each by its name and what it is made on, such as
`pwrite temporary`, so that one run lists what a later run can spoil; what looks for holes is a
`find_hole`.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import shutil
import sys
import sysconfig
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

import vhdx2raw
from tests.support.builder import MIB, Block, BlockState, ImageSpec, child_of, make_dirty
from tests.support.chains import base_disk
from tests.support.cli import Outcome, run, small_disk
from tests.support.files import names_in, open_files, sha256_of

PACKAGE = str(Path(vhdx2raw.__file__).parent) + os.sep
LIBRARY = (sysconfig.get_path("stdlib") + os.sep, "<frozen ", __file__)
"""Between the package and a call lie at most these: the standard library, and this module."""

OS_CALLS = [
    *("close", "fstat", "fsync", "fdatasync", "ftruncate", "lseek", "lstat", "open", "stat"),
    *("pread", "preadv", "read", "readv", "pwrite", "pwritev", "write", "writev", "sendfile"),
    *("copy_file_range", "posix_fallocate", "posix_fadvise", "truncate", "utime", "chmod"),
    *("link", "rename", "replace", "symlink", "unlink", "mkdir", "rmdir"),
    *("access", "listdir", "readlink", "scandir"),
]
PATH_CALLS = ["iterdir", "lstat", "rename", "replace", "stat", "unlink"]
"""Methods that hold on to functions of `os` in Python 3.10, where they must be replaced, too."""
LOOKS_FOR_HOLES = ("find_data", "_find_data")
"""Functions of the package whose calls need not succeed: what may be a hole is read as data."""

Real = Callable[..., Any]
Spoiler = Callable[..., Any]
"""Called in place of a call, with the real function and its arguments."""


@dataclass(frozen=True)
class Fault:
    """What is wrong with the host.

    Attributes:
        what: The calls concerned, such as ``pwrite temporary``; ``* output`` means every call on
            what is written.
        number: Which of these calls it is, from 1 on.
        spoil: What happens instead.
        stays: Whether it happens at every later one, too.
    """

    what: str
    number: int
    spoil: Spoiler
    stays: bool = False


def fails(number: int) -> Spoiler:
    """Give a call that fails and does nothing; a descriptor is closed nevertheless, as on Linux."""

    def fail(real: Real, *arguments: Any, **options: Any) -> Any:  # noqa: ANN401
        if real is REAL_CLOSE:
            real(*arguments)
        raise error_of(number, arguments[0])

    return fail


def error_of(number: int, target: Any) -> OSError:  # noqa: ANN401 - a path or a descriptor
    """Give the failure of a call as Python words it: with the path, if it was given one."""
    names = [os.fspath(target)] if isinstance(target, (str, os.PathLike)) else []
    return OSError(number, os.strerror(number), *names)


def fails_afterwards(number: int) -> Spoiler:
    """Give a call that does its work, but reports a failure: the reply of a server got lost."""

    def fail(real: Real, *arguments: Any, **options: Any) -> Any:  # noqa: ANN401
        result = real(*arguments, **options)
        if hasattr(result, "close"):  # what is lost on the way
            result.close()
        raise error_of(number, arguments[0])

    return fail


def is_short(limit: int) -> Spoiler:
    """Give a read or write of at most `limit` bytes."""

    def shorten(real: Real, descriptor: int, data: Any, *rest: Any) -> Any:  # noqa: ANN401
        if isinstance(data, int):
            return real(descriptor, min(data, limit), *rest)
        if isinstance(data, list):
            return real(descriptor, [data[0][:limit]], *rest)
        return real(descriptor, data[:limit], *rest)

    return shorten


def comes_after(event: Callable[[], object]) -> Spoiler:
    """Give a call before which something else happens."""

    def wait(real: Real, *arguments: Any, **options: Any) -> Any:  # noqa: ANN401
        event()
        return real(*arguments, **options)

    return wait


REAL_CLOSE, REAL_READLINK, REAL_ISDIR = os.close, os.readlink, os.path.isdir


class Host:
    """The operating system in this process, with its faults.

    Attributes:
        calls: What the package called, in order.
        injected: How many calls were spoiled, not counting what always is.
    """

    def __init__(self, faults: Sequence[Fault] = (), always: Sequence[Fault] = ()) -> None:
        self.calls: list[str] = []
        self.injected = 0
        self._faults = [*faults, *always]
        self._always = always
        self._counts = [0] * len(self._faults)
        self._lock = threading.Lock()
        self._inside = threading.local()

    @contextmanager
    def installed(self) -> Iterator[Host]:
        """Take the place of the real functions inside of the context."""
        with pytest.MonkeyPatch.context() as patch:
            for name in OS_CALLS:
                patch.setattr(os, name, self._wrapped(name, getattr(os, name)))
            for name in PATH_CALLS:
                patch.setattr(Path, name, self._wrapped(name, getattr(Path, name)))
            patch.setattr(fcntl, "ioctl", self._wrapped("ioctl", fcntl.ioctl))
            yield self

    def _wrapped(self, name: str, real: Real) -> Real:
        def call(*arguments: Any, **options: Any) -> Any:  # noqa: ANN401
            # A method of Path that calls a function of os is one call, not two.
            caller = sys._getframe(1)
            if getattr(self._inside, "depth", 0) or not is_of_package(caller):
                return real(*arguments, **options)
            self._inside.depth = 1
            try:
                what = "find_hole" if caller.f_code.co_name in LOOKS_FOR_HOLES else name
                spoil = self._choose(f"{what} {target_of(arguments[0])}")
                return spoil(real, *arguments, **options) if spoil else real(*arguments, **options)
            finally:
                self._inside.depth = 0

        return call

    def _choose(self, what: str) -> Spoiler | None:
        with self._lock:
            self.calls.append(what)
            chosen = None
            for index, fault in enumerate(self._faults):
                if not concerns(fault.what, what):
                    continue
                self._counts[index] += 1
                count = self._counts[index]
                if chosen is None and (
                    count == fault.number or (fault.stays and count > fault.number)
                ):
                    chosen = fault.spoil
                    self.injected += fault not in self._always
            return chosen


def leave_out_syncs(patch: pytest.MonkeyPatch) -> None:
    """Let syncs only look at the descriptor: what they do shows after a loss of power alone.

    They can be spoiled as before. Thousands of them take longer than all the rest.
    """
    for name in ("fsync", "fdatasync"):
        patch.setattr(os, name, os.fstat)


def is_of_package(frame: FrameType | None) -> bool:
    """Return whether a call comes from the package, maybe by way of the standard library."""
    while frame and not frame.f_code.co_filename.startswith(PACKAGE):
        if not frame.f_code.co_filename.startswith(LIBRARY):
            return False
        frame = frame.f_back
    return frame is not None


OUTPUTS = ("temporary", "output", "folder", "stdout")


def concerns(pattern: str, what: str) -> bool:
    """Return whether the pattern of a fault means a call."""
    target = what.split()[1]
    if pattern == "* output":
        return target in OUTPUTS
    if pattern == "* source":
        return target not in OUTPUTS
    return pattern == what


TARGETS = (
    (".part", "temporary"),
    (".img", "output"),
    (".stdout", "stdout"),
    ("base.vhdx", "parent"),
    (".vhdx", "source"),
    (".avhdx", "source"),
)
"""What is in the name of a file, and what it is then."""


def target_of(argument: Any) -> str:  # noqa: ANN401 - a path, a descriptor or a file
    """Name what the first argument of a call means."""
    if hasattr(argument, "fileno"):
        argument = argument.fileno()
    path = REAL_READLINK(f"/proc/self/fd/{argument}") if isinstance(argument, int) else argument
    path = os.fsdecode(path)
    name = os.path.basename(path.rstrip("/")).lower()  # noqa: PTH119 - for every call, so quickly
    for part, target in TARGETS:
        if part in name:
            return target
    return "folder" if REAL_ISDIR(path or ".") else "other"


def errnos_of(what: str) -> list[int]:
    """List what the manual pages of Linux let a call fail with; the commonest first."""
    numbers = ERRNOS[what.split(maxsplit=1)[0]]
    return [number for number in numbers if number not in NOT_ON.get(what, ())]


PATH_ERRNOS = [errno.EIO, errno.EACCES, errno.ESTALE, errno.ENOMEM, errno.ELOOP]
ERRNOS: dict[str, list[int]] = {
    "close": [errno.EIO, errno.ENOSPC, errno.EDQUOT, errno.EINTR, errno.ESTALE],
    "find_hole": [errno.EINVAL, errno.EIO, errno.ESTALE, errno.EOPNOTSUPP],
    "fstat": [errno.EIO, errno.ESTALE, errno.ENOMEM],
    "fsync": [errno.EIO, errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.ESTALE, errno.EINVAL],
    "ftruncate": [errno.EFBIG, errno.EIO, errno.ENOSPC, errno.EDQUOT, errno.EPERM, errno.EROFS],
    "ioctl": [errno.EOPNOTSUPP, errno.EIO, errno.ENOSPC, errno.EDQUOT, errno.EINTR, errno.ENOMEM],
    "iterdir": [errno.EIO, errno.EACCES, errno.EMFILE, errno.ENOMEM, errno.ESTALE],
    "link": [
        *(errno.EPERM, errno.EIO, errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES),
        *(errno.EMLINK, errno.ENOMEM, errno.ESTALE, errno.EXDEV),
    ],
    "lseek": [errno.EIO, errno.ESTALE, errno.ESPIPE],
    "lstat": PATH_ERRNOS,
    "open": [
        *(errno.EMFILE, errno.EIO, errno.EACCES, errno.ENFILE, errno.ENOMEM, errno.ESTALE),
        *(errno.EROFS, errno.ENOSPC, errno.EDQUOT, errno.EPERM, errno.ENXIO),
    ],
    "posix_fadvise": [errno.EINVAL, errno.ESPIPE, errno.EIO],
    "pread": [errno.EIO, errno.ESTALE, errno.ENOMEM, errno.EACCES],
    "preadv": [errno.EIO, errno.ESTALE, errno.ENOMEM, errno.EACCES],
    "pwrite": [
        *(errno.ENOSPC, errno.EIO, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.ESTALE),
        *(errno.ENOMEM, errno.EPERM),
    ],
    "readlink": PATH_ERRNOS,
    "rename": [
        *(errno.EIO, errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.ENOENT),
        *(errno.EXDEV, errno.ENOMEM, errno.ESTALE, errno.EBUSY),
    ],
    "stat": PATH_ERRNOS,
    "unlink": [errno.EIO, errno.EACCES, errno.EROFS, errno.EBUSY, errno.ESTALE],
    "write": [
        *(errno.EPIPE, errno.ENOSPC, errno.EIO, errno.EAGAIN, errno.EDQUOT, errno.EFBIG),
        *(errno.ENOMEM, errno.ESTALE),
    ],
}
ERRNOS["listdir"] = ERRNOS["scandir"] = ERRNOS["iterdir"]
ERRNOS["replace"] = ERRNOS["rename"]
NOT_ON = {"open source": (errno.ENOSPC, errno.EDQUOT, errno.EROFS)}


# -- a stage: files on which a conversion can go wrong -------------------------------------------

NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""Failures of the output that are told with a hint, though the exit code is 8."""
NO_OUTPUT = (errno.ENOENT, errno.ENOTDIR, errno.EPIPE, errno.EEXIST, errno.ENAMETOOLONG)
"""Failures of the output that end with exit code 7; every other one of the host is an 8."""
OLD = b"precious"
NAME = "out.img"


@dataclass(frozen=True)
class Scene:
    """A way through the program.

    Attributes:
        specs: The images by their names, the one to convert first.
        words: Options.
        to_stream: Whether the disk goes to standard output.
        is_replacing: Whether there is an old file, which may be replaced.
        faults: What is always wrong with the host.
    """

    specs: Callable[[], dict[str, ImageSpec]]
    words: tuple[str, ...] = ()
    to_stream: bool = False
    is_replacing: bool = False
    faults: tuple[Fault, ...] = ()


def plain_disk() -> dict[str, ImageSpec]:
    """Describe one image."""
    return {"disk.vhdx": small_disk()}


def dirty_child() -> dict[str, ImageSpec]:
    """Describe a child with updates in its log, and a parent whose name differs in case."""
    parent = base_disk(virtual_disk_size=3 * MIB, blocks={index: Block() for index in (2, 0)})
    bits = {0, 1, 2, *range(16, 33), 100}
    blocks = {0: Block(BlockState.PARTIALLY_PRESENT, sector_bits=bits)}
    before = child_of(parent, ".\\base.vhdx", blocks=blocks)
    after = child_of(parent, ".\\base.vhdx", blocks={**blocks, 1: Block(content=b"new")})
    return {"child.avhdx": make_dirty(before, after), "Base.vhdx": parent}


SCENES = {
    "plain": Scene(plain_disk),
    "replacing": Scene(plain_disk, ("--force", "--no-clone", "--json"), is_replacing=True),
    "everything": Scene(plain_disk, ("-S", "0", "--no-sync")),
    "chain": Scene(dirty_child),
    "no hard links": Scene(plain_disk, faults=(Fault("link temporary", 1, fails(errno.EPERM)),)),
    "stream": Scene(plain_disk, to_stream=True),
}


class Stage:
    """The files of a scene, on which it can be played again and again."""

    def __init__(self, scene: Scene, folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
        """Write the images into `folder`."""
        self._capfd = capfd
        self._scene = scene
        self._specs = scene.specs()
        self.inputs, self.outputs = folder / "inputs", folder / "outputs"
        self.inputs.mkdir()
        for name, spec in self._specs.items():
            spec.write(self.inputs / name)
        self.sources = [self.inputs / name for name in self._specs]
        child = next(iter(self._specs.values()))
        self._expected = child.expected_disk(0, child.virtual_disk_size)
        self._note_sources()
        self.target = self.outputs / (".stdout" if scene.to_stream else NAME)

    def _note_sources(self) -> None:
        self._times = self._times_of_sources()
        self._hashes = [sha256_of(path) for path in self.sources]

    def _times_of_sources(self) -> list[tuple[int, int, int]]:
        states = [path.stat() for path in self.sources]
        return [(state.st_size, state.st_mtime_ns, state.st_ctime_ns) for state in states]

    def write_sources_anew(self) -> None:
        """Make good what an event did to the sources."""
        for path, spec in zip(self.sources, self._specs.values(), strict=True):
            spec.write(path)
        self._note_sources()

    def assert_sources_untouched(self) -> None:
        """Check the bytes of the sources, too; between two runs their times are enough."""
        assert [sha256_of(path) for path in self.sources] == self._hashes
        assert self._times_of_sources() == self._times

    def play(self, *faults: Fault, workers: int = 1) -> tuple[Host, Outcome]:
        """Convert once more, in this process, with faults."""
        shutil.rmtree(self.outputs, ignore_errors=True)
        self.outputs.mkdir()
        if self._scene.is_replacing:
            self.target.write_bytes(OLD)
        words = ["--workers", str(workers), *self._scene.words]
        host = Host(faults, self._scene.faults)
        with ExitStack() as stack:
            if self._scene.to_stream:
                patch = stack.enter_context(pytest.MonkeyPatch.context())
                stream = stack.enter_context(self.target.open("w"))
                patch.setattr(sys, "stdout", stream)
            stack.enter_context(host.installed())
            target: str | Path = "-" if self._scene.to_stream else self.target
            outcome = run(self._capfd, *words, self.sources[0], target)
        return host, outcome

    @property
    def is_perfect(self) -> bool:
        """Whether the output is complete and right."""
        return self.target.exists() and self.target.read_bytes() == self._expected

    @property
    def is_as_before(self) -> bool:
        """Whether the name of the output is as it was: free, or that of the old file."""
        if self._scene.is_replacing:
            return self.target.read_bytes() == OLD
        return not self.target.exists()

    @property
    def leftovers(self) -> list[str]:
        """The names of temporary files."""
        return [name for name in names_in(self.outputs) if name != self.target.name]

    def assert_clean(self, outcome: Outcome) -> None:
        """Check what holds however a run ends: same sources, no open file, at most two lines."""
        assert self._times_of_sources() == self._times
        assert open_files_in(self.inputs.parent) == []
        if outcome.exit_code == 0:
            assert outcome.err == ""
            assert self.is_perfect
            return
        line, *more = outcome.err_lines
        assert line.startswith("vhdx2raw: ")
        assert len(more) <= 1
        assert all(hint.startswith("vhdx2raw: hint: ") for hint in more)
        if "--json" in self._scene.words:
            assert_told_as_json(outcome)
        else:
            assert outcome.out == ""

    def assert_kept_nothing(self, outcome: Outcome) -> None:
        """Check what a failure leaves: nothing under the final name, and no temporary file."""
        assert outcome.exit_code != 0
        # What went into a pipe cannot be called back.
        assert self._scene.to_stream or self.is_as_before
        assert self.leftovers == []


def assert_told_as_json(outcome: Outcome) -> None:
    """Check that stdout has the failure that stderr has, and nothing else."""
    [error] = json.loads(outcome.out).values()
    assert error["exit-code"] == outcome.exit_code
    lines = [f"vhdx2raw: {error['message']}", f"vhdx2raw: hint: {error['hint']}"]
    assert outcome.err_lines == lines[: 2 if error["hint"] else 1]


def open_files_in(folder: Path) -> list[str]:
    """List the files in a folder that this process has open."""
    return [file for file in open_files() if file.startswith(str(folder))]
