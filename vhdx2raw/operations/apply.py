"""A checkpoint's changes put onto a raw image that was made before, in place."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from uuid import UUID

from vhdx2raw.disk.chain import AnyPath, NamedFinding, OpenOptions, open_chain
from vhdx2raw.disk.extents import Extent, ExtentKind
from vhdx2raw.disk.virtual_disk import VirtualDisk
from vhdx2raw.errors import OutputError, ParentMismatchError, ParentNotFoundError
from vhdx2raw.operations.compare import VERIFY_REMEDY
from vhdx2raw.operations.convert import default_workers
from vhdx2raw.operations.copying import Copy
from vhdx2raw.operations.progress import ProgressCallback, no_progress
from vhdx2raw.operations.state import (
    ImageState,
    check_unchanged,
    default_state_path,
    observe,
    read_state,
    version_of,
    write_state,
)
from vhdx2raw.output.block_device import BlockDeviceSink
from vhdx2raw.output.in_place import InPlaceSink
from vhdx2raw.output.opening import is_block_device
from vhdx2raw.rules import Rule
from vhdx2raw.source.raw_file import RawFile
from vhdx2raw.units import KIB, MIB

SPARSE_SIZE = 4 * KIB
AGAIN_REMEDY = "run the same command once more when the file is at rest"


@dataclass(frozen=True, slots=True, kw_only=True)
class ApplyOptions(OpenOptions):
    """How a checkpoint is opened and applied.

    Attributes:
        parents: Images between the checkpoint and the version that the image holds, newest first.
        parent_dirs: Folders in which they may lie, besides that of the checkpoint.
        allow_parent_mismatch: Whether one of them may have another identity than its child records.
        log_policy: What to do with a log that holds updates, in every file.
        state: The state file; by default the one beside the image.
        force: Whether the image may have been changed since its state was written.
        dry_run: Whether to write nothing, and only say what would be written.
        verify: Whether to read back what was written, and compare.
        workers: Threads that write; by default as many as there are processors, up to four.
        progress: Called from this thread about ten times a second with the bytes written so far
            and the bytes to be written. What it raises ends the work.
    """

    state: AnyPath | None = None
    force: bool = False
    dry_run: bool = False
    verify: bool = False
    workers: int | None = None
    progress: ProgressCallback = no_progress


DEFAULTS = ApplyOptions()


@dataclass(frozen=True, slots=True)
class ApplyResult:
    """What was put onto an image, in bytes of the virtual disk.

    Attributes:
        virtual_disk_size: All of it.
        changed_bytes: Data and zeros that the checkpoint has and the version before has not.
        changed_ranges: In how many ranges they lie.
        written_bytes: Of these, written; the rest was made zero.
        files: The files that were applied, the newest first; none if the image had it already.
        state: What the image holds now.
        warnings: What is unusual about a file, though its bytes are right.
    """

    virtual_disk_size: int
    changed_bytes: int
    changed_ranges: int
    written_bytes: int
    files: tuple[str, ...]
    state: ImageState
    warnings: tuple[NamedFinding, ...] = ()


def apply_checkpoint(
    child: AnyPath, destination: AnyPath, options: ApplyOptions = DEFAULTS
) -> ApplyResult:
    """Put onto a raw image what a checkpoint, or several of a chain, have changed.

    The base need not be there: the image holds it, by its state file. After a failure, or a kill,
    the same call goes on and ends with the right bytes.

    Args:
        child: The checkpoint; the images between it and the version that the image holds are
            found as parents are.
        destination: The raw image, a regular file or a block device, which is changed in place.
        options: How to open and to apply.

    Raises:
        ImageError: A file is no VHDX, is not supported, is damaged or was changed meanwhile.
        ParentError: The checkpoint does not descend from what the image holds, or a file between
            is missing.
        OutputError: The image is not what its state file says, or cannot be written.
        OSError: The host could not read or write.
    """
    name, path = os.fspath(destination), _state_path(destination, options)
    state = read_state(path)
    with _open(child, name, state, options) as disk:
        target = version_of(disk)
        _check_state(disk, name, path, state, options)
        if disk.chain.base is None:  # the image holds this version already
            return ApplyResult(disk.size, 0, 0, 0, (), state, disk.warnings)
        extents = _changed_extents(disk, state.virtual_disk_size)
        changed = sum(extent.length for extent in extents())
        ranges = sum(1 for _ in _joined(extents()))
        if options.dry_run:
            return ApplyResult(disk.size, changed, ranges, 0, disk.files, state, disk.warnings)
        sink = _open_sink(name, disk)
        try:
            write_state(path, replace(state, applying=target))
            written = _write(disk, sink, extents, options)
        except BaseException:
            sink.abort()
            raise
        if options.verify:
            _verify(disk, name, extents())
        state = observe(name, disk)
        write_state(path, state)
        return ApplyResult(disk.size, changed, ranges, written, disk.files, state, disk.warnings)


def _state_path(destination: AnyPath, options: ApplyOptions) -> str:
    if options.state is not None:
        return os.fspath(options.state)
    if is_block_device(destination):
        problem, remedy = "is a block device, beside which no state is kept", "name it with {state}"
        raise OutputError(problem, path=os.fspath(destination), remedy=remedy)
    return default_state_path(destination)


def _open(child: AnyPath, name: str, state: ImageState, options: ApplyOptions) -> VirtualDisk:
    """Open the checkpoint and its parents, down to the version that the image holds."""
    base = UUID(state.holds.data_write_guid)
    try:
        disk = VirtualDisk(open_chain(child, options, stop_at=base))
    except ParentNotFoundError as error:
        error.message += f"; {name} holds {state.holds}"
        raise
    if disk.chain.base is None and version_of(disk).data_write_guid != str(base):
        disk.close()
        problem = f"does not descend from what {name} holds, {state.holds}"
        problem += f"; it is {version_of(disk)}"
        remedy = "apply the checkpoint that was made of that version first, or convert anew"
        raise ParentMismatchError(
            problem, rule=Rule.PARENT_VERSION, path=os.fspath(child), remedy=remedy
        )
    return disk


def _check_state(
    disk: VirtualDisk, name: str, path: str, state: ImageState, options: ApplyOptions
) -> None:
    """Make sure that `disk` can be applied to what the image holds."""
    if state.applying:
        if state.applying.data_write_guid != version_of(disk).data_write_guid:
            problem = f"is being brought from {state.holds} to {state.applying}"
            remedy = f"apply {state.applying.filename} once more, to its end"
            raise OutputError(problem, path=name, remedy=remedy)
    elif not options.force:
        check_unchanged(name, path, state)
    if disk.size < state.virtual_disk_size:
        problem = f"holds a disk of {state.virtual_disk_size} bytes, the checkpoint has {disk.size}"
        raise OutputError(problem, path=name, remedy="convert the disk anew")
    if disk.metadata.logical_sector_size != state.logical_sector_size:
        problem = f"holds a disk with sectors of {state.logical_sector_size} bytes"
        raise OutputError(problem, path=name, remedy="convert the disk anew")


def _changed_extents(disk: VirtualDisk, old_size: int) -> Callable[[], Iterator[Extent]]:
    """Return what yields the extents that the checkpoint has, without what it leaves to its base.

    Past the end of the base lie zeros.
    """

    def extents() -> Iterator[Extent]:
        for extent in disk.extents():
            if extent.kind is not ExtentKind.INHERITED:
                yield extent
            elif extent.virtual_end > old_size:
                start = max(extent.virtual_offset, old_size)
                yield Extent(ExtentKind.ZERO, start, extent.virtual_end - start)

    return extents


def _write(
    disk: VirtualDisk,
    sink: InPlaceSink | BlockDeviceSink,
    extents: Callable[[], Iterator[Extent]],
    options: ApplyOptions,
) -> int:
    """Change the image; return how many bytes were written. All of it is on stable storage."""
    if isinstance(sink, InPlaceSink):
        sink.lengthen()
    disk.chain.watch()
    copy = Copy(disk, sink, sparse_size=SPARSE_SIZE, clone=False, extents=extents)
    copy.run(options.workers or default_workers(), options.progress)
    sink.flush()
    disk.chain.require_unchanged(remedy=AGAIN_REMEDY)
    options.progress(copy.done_bytes, copy.total_bytes)
    sink.commit()
    return copy.written_bytes


def _open_sink(name: str, disk: VirtualDisk) -> InPlaceSink | BlockDeviceSink:
    inputs = disk.chain.identities
    if is_block_device(name):
        return BlockDeviceSink(name, disk.size, replace=True, inputs=inputs)
    return InPlaceSink(name, disk.size, inputs=inputs)


def _joined(extents: Iterator[Extent]) -> Iterator[tuple[int, int]]:
    """Yield (start, end) of the ranges that some extents cover, no two of which touch."""
    start = end = 0
    for extent in extents:
        if extent.virtual_offset != end:
            if start < end:
                yield start, end
            start = extent.virtual_offset
        end = extent.virtual_end
    if start < end:
        yield start, end


def _verify(disk: VirtualDisk, name: str, extents: Iterator[Extent]) -> None:
    """Read back from the storage what was written, and compare.

    Raises:
        OutputError: It holds something else.
    """
    with RawFile(name, max_device_size=disk.size) as raw:
        raw.forget_cached()
        for extent in extents:
            for start in range(extent.virtual_offset, extent.virtual_end, MIB):
                size = min(MIB, extent.virtual_end - start)
                expected = bytes(size)
                if extent.kind is ExtentKind.DATA:
                    expected = disk.pread(size, start)
                if raw.pread(start, size) != expected:
                    problem = f"is not what was written, in the MiB from {start:#x} on"
                    raise OutputError(problem, path=name, remedy=VERIFY_REMEDY)
