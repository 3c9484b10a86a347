"""A checkpoint's changes put onto a raw image that was made before, in place."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from uuid import UUID

from vhdx2raw.disk.chain import AnyPath, NamedFinding, OpenOptions, open_parents
from vhdx2raw.disk.extents import Extent, ExtentKind
from vhdx2raw.disk.virtual_disk import VirtualDisk, open_disk
from vhdx2raw.errors import (
    ImageError,
    OutputError,
    ParentError,
    ParentMismatchError,
    ParentNotFoundError,
)
from vhdx2raw.operations.compare import VERIFY_REMEDY, verify
from vhdx2raw.operations.copying import Copy
from vhdx2raw.operations.progress import ProgressCallback, no_progress, throttled
from vhdx2raw.operations.state import (
    ANEW_REMEDY,
    ImageState,
    begin,
    default_state_path,
    observe,
    read_state,
    require_same_work,
    require_size,
    require_unchanged,
    require_version,
    version_of,
    write_state,
)
from vhdx2raw.operations.writing import default_workers
from vhdx2raw.output.block_device import BlockDeviceSink
from vhdx2raw.output.in_place import InPlaceSink
from vhdx2raw.output.opening import open_in_place
from vhdx2raw.rules import Rule
from vhdx2raw.source.base import Fetched
from vhdx2raw.source.raw_file import RawFile
from vhdx2raw.units import KIB, MIB
from vhdx2raw.vhdx.image import VhdxImage, open_image

SPARSE_SIZE = 4 * KIB
CHANGED_REMEDY = "convert it anew, or with {update} to write only what differs"
AGAIN_REMEDY = "run the same command once more when the file is at rest"


@dataclass(frozen=True, slots=True, kw_only=True)
class ApplyOptions(OpenOptions):
    """How a checkpoint is opened and applied.

    Attributes:
        parents: Images between the checkpoint and the version that the image holds, newest first.
        parent_dirs: Folders in which they may lie, besides that of the checkpoint.
        allow_parent_mismatch: Whether one of them may have another identity than its child records.
        log_policy: What to do with a log that holds updates, in every file; none can be ignored.
        salvage: Must not be set: what is lost is no version of a disk.
        regions: Of no use without `salvage`.
        connections: How many requests may be under way at a time, of URLs, 1 to 16.
        retries: How often a request is made again that failed for the moment.
        timeout: Seconds to wait for a connection, and each time for more bytes.
        anonymous: Whether to use no credentials for what is public.
        ca_file: Certificates, in PEM, that are trusted besides those that the host trusts.
        state: The state file; by default the one beside the image.
        force: Whether the image may have been changed since its state was written.
        dry_run: Whether to write nothing, and only say what would be written.
        verify: Whether to read back what was written, and compare; all of the disk if every parent
            is at hand.
        workers: Threads that write; by default as many as there are processors, up to four.
        progress: Called from this thread with the bytes done so far and the bytes to be done: once
            before anything is changed, then about ten times a second. What it raises ends the work.
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
        changed_bytes: Data and zeros that the checkpoint has, and the version before may not have.
        changed_ranges: In how many ranges they lie.
        written_bytes: Of these, written; the rest was made zero.
        files: The files that were applied, the newest first; none if the image had it already.
        verified_bytes: Read back and compared.
        state: What the image holds now.
        warnings: What is unusual about a file, though its bytes are right.
        fetched: What was read over a network; None if every file is one of the host.
    """

    virtual_disk_size: int
    changed_bytes: int
    changed_ranges: int
    written_bytes: int
    files: tuple[str, ...]
    state: ImageState
    verified_bytes: int = 0
    warnings: tuple[NamedFinding, ...] = ()
    fetched: Fetched | None = None


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
        RemoteError: A file could not be read over the network.
        ParentError: The checkpoint does not descend from what the image holds, or a file between
            is missing.
        OutputError: The image is not what its state file says, or cannot be written.
        OSError: The host could not read or write.
        ValueError: The checkpoint is opened in part only.
    """
    name = os.fspath(destination)
    path = default_state_path(name) if options.state is None else os.fspath(options.state)
    state = read_state(path)
    with _open(child, name, state, options) as disk:
        require_version(disk)
        _check_image(disk, name, path, state, options)
        if not state.applying and version_of(disk).is_same_file_state(state.holds):
            result = ApplyResult(disk.size, 0, 0, 0, (), state, warnings=disk.warnings)
        else:
            work = _Work(disk, name, path, state, options)
            result = work.planned() if options.dry_run else work.run(child)
        return replace(result, fetched=disk.chain.fetched)


def _open(child: AnyPath, name: str, state: ImageState, options: ApplyOptions) -> VirtualDisk:
    """Open the checkpoint and its parents, down to the version that the image holds."""
    image = open_image(child, options.log_policy, salvage=options.salvage, remote=options)
    try:
        base = _base_of(image, state)
    except BaseException:
        image.close()
        raise
    try:
        disk = VirtualDisk(open_parents(image, options, stop_at=base))
    except ParentNotFoundError as error:
        error.message += f"; {name} holds {state.holds}"
        raise
    version = version_of(disk)
    if disk.chain.base is None and not version.is_same_file_state(state.holds):
        disk.close()
        if version.data_write_guid == state.holds.data_write_guid:
            problem = f"was written to after {name} was made of it"
            raise OutputError(problem, path=disk.name, remedy=CHANGED_REMEDY)
        problem = f"does not descend from what {name} holds, {state.holds}"
        problem += f"; it is {version}"
        remedy = f"apply the checkpoint that was made of that version first, or {ANEW_REMEDY}"
        raise ParentMismatchError(problem, rule=Rule.PARENT_VERSION, path=disk.name, remedy=remedy)
    return disk


def _base_of(image: VhdxImage, state: ImageState) -> UUID:
    """Return the version onto which the checkpoint is to be put.

    If the image holds that checkpoint already, this is its parent: a VM that ran on may have
    written more under the same GUID, and all that it changed is in the last layer.
    """
    held = UUID(state.holds.data_write_guid)
    if image.header_section.header.data_write_guid != held:
        return held
    locator = image.metadata.parent_locator
    if locator is None:
        return held
    return locator.linkages[0]


def _check_image(
    disk: VirtualDisk, name: str, path: str, state: ImageState, options: ApplyOptions
) -> None:
    """Make sure that `disk` can be put onto what the image holds."""
    require_same_work(name, state, version_of(disk), "apply")
    if disk.size < state.virtual_disk_size:
        problem = f"holds a disk of {state.virtual_disk_size} bytes, the checkpoint has {disk.size}"
        raise OutputError(problem, path=name, remedy=ANEW_REMEDY)
    if disk.metadata.logical_sector_size != state.logical_sector_size:
        problem = f"holds a disk with sectors of {state.logical_sector_size} bytes"
        raise OutputError(problem, path=name, remedy=ANEW_REMEDY)
    require_size(name, path, state, disk.size)
    if not options.force:
        require_unchanged(name, path, state, lambda *place: not _is_inherited(disk, *place))


def _is_inherited(disk: VirtualDisk, virtual_offset: int, length: int) -> bool:
    extents = disk.extents(virtual_offset, length)
    return all(extent.kind is ExtentKind.INHERITED for extent in extents)


class _Work:
    """What is to be done to an image, and how it is done."""

    def __init__(
        self,
        disk: VirtualDisk,
        name: str,
        path: str,
        state: ImageState,
        options: ApplyOptions,
    ) -> None:
        self._disk, self._name, self._options = disk, name, options
        self._path, self._state = path, state
        self._changed_bytes = sum(extent.length for extent in self._extents())
        self._changed_ranges = sum(1 for _ in _joined(self._extents()))

    def planned(self) -> ApplyResult:
        """Return what would be done."""
        return self._result(0, 0, self._state)

    def _result(self, written: int, verified: int, state: ImageState) -> ApplyResult:
        disk = self._disk
        return ApplyResult(
            disk.size,
            self._changed_bytes,
            self._changed_ranges,
            written,
            disk.files,
            state,
            verified,
            disk.warnings,
        )

    def _extents(self) -> Iterator[Extent]:
        """Yield what the checkpoint has, without what it leaves to its base.

        Past the end of the base lie zeros.
        """
        old_size = self._state.virtual_disk_size
        for extent in self._disk.extents():
            if extent.kind is not ExtentKind.INHERITED:
                yield extent
            elif extent.virtual_end > old_size:
                start = max(extent.virtual_offset, old_size)
                yield Extent(ExtentKind.ZERO, start, extent.virtual_end - start)

    def run(self, child: AnyPath) -> ApplyResult:
        """Change the image, and record before and after what it holds."""
        disk = self._disk
        passes = 2 if self._options.verify else 1
        self._options.progress(0, self._changed_bytes * passes)
        disk.chain.watch()
        sink = open_in_place(self._name, disk.size, inputs=disk.chain.identities)
        try:
            begin(self._name, self._path, self._state, version_of(disk), "apply")
            written = self._write(sink)
            verified = self._verify(child) if self._options.verify else 0
            sink.commit()
        except BaseException:
            sink.abort()
            raise
        state = observe(self._name, disk)
        write_state(self._path, state)
        return self._result(written, verified, state)

    def _write(self, sink: InPlaceSink | BlockDeviceSink) -> int:
        """Write; return how many bytes. All of it is on stable storage then."""
        if isinstance(sink, InPlaceSink):
            sink.lengthen()
        progress, passes = self._options.progress, 2 if self._options.verify else 1
        copy = Copy(self._disk, sink, sparse_size=SPARSE_SIZE, clone=False, extents=self._extents)
        workers = self._options.workers or default_workers()
        sink.expect_flush()
        copy.run(workers, lambda done, all_: progress(done, all_ * passes))
        sink.flush()
        self._disk.chain.require_unchanged(remedy=AGAIN_REMEDY)
        progress(copy.done_bytes, copy.total_bytes * passes)
        return copy.written_bytes

    def _verify(self, child: AnyPath) -> int:
        """Read back from the storage what was written, or all of the disk; return how much.

        Raises:
            OutputError: It holds something else.
        """
        total, progress = self._changed_bytes, self._options.progress

        def report(done: int, all_: int) -> None:
            progress(total + total * done // max(1, all_), 2 * total)

        try:
            whole = open_disk(child, self._options)
        except (ParentError, ImageError):  # the base need not be here, nor be sound
            self._verify_changes(throttled(report))
            return total
        with whole:
            verify(whole, self._name, progress=report)
            return whole.size

    def _verify_changes(self, report: ProgressCallback) -> None:
        done = 0
        with RawFile(self._name, max_device_size=self._disk.size) as raw:
            raw.drop_cached()
            for extent in self._extents():
                for start in range(extent.virtual_offset, extent.virtual_end, MIB):
                    size = min(MIB, extent.virtual_end - start)
                    part = extent.cut(start, start + size)
                    expected = bytearray(size)
                    if part.kind is ExtentKind.DATA:
                        part.read_into(memoryview(expected))
                    if raw.pread(start, size) != expected:
                        problem = f"is not what was written, in the MiB from {start:#x} on"
                        raise OutputError(problem, path=self._name, remedy=VERIFY_REMEDY)
                    done += size
                    report(done, self._changed_bytes)


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
