"""One conversion: a virtual disk becomes a raw image, completely or not at all."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, get_args

from vhdx2raw.disk.chain import AnyPath, NamedFinding
from vhdx2raw.disk.salvage import Range
from vhdx2raw.disk.virtual_disk import VirtualDisk, open_disk
from vhdx2raw.errors import ImageError, OutputError, UntoldResultError, add_note
from vhdx2raw.operations.acceptance import check_acceptable
from vhdx2raw.operations.copying import Holes
from vhdx2raw.operations.progress import ProgressCallback, no_progress
from vhdx2raw.operations.resume import Resumption
from vhdx2raw.operations.shaping import find_misplaced_backup, shape_of
from vhdx2raw.operations.state import observe, require_version, require_writable, write_state
from vhdx2raw.operations.update import find_state, open_update
from vhdx2raw.operations.writing import Writing
from vhdx2raw.output import vhd
from vhdx2raw.output.base import Sink
from vhdx2raw.output.block_device import BlockDeviceSink
from vhdx2raw.output.difference import DifferenceSink
from vhdx2raw.output.hashes import require_algorithm
from vhdx2raw.output.opening import is_block_device, open_sink
from vhdx2raw.output.shape import OutputFormat, Shape
from vhdx2raw.source.file_object import AnyFile
from vhdx2raw.units import KIB, TIB
from vhdx2raw.zeros import MAX_BUFFER_SIZE

if TYPE_CHECKING:
    from vhdx2raw.output.maps import MapSink

DEFAULT_SPARSE_SIZE = 4 * KIB
MIN_SPARSE_SIZE = 512
MAX_SPARSE_SIZE = MAX_BUFFER_SIZE
LEFT_INCOMPLETE = "was overwritten in part, and holds no usable disk now"
LEFT_MIXED = "was changed in part, and is a mixture of two disks until this is run once more"
STATE_MISSING = "is complete, but there is no state file that says so"
MAX_ROUND_SIZE = 64 * TIB


@dataclass(frozen=True, slots=True, kw_only=True)
class ConvertOptions:
    """How a disk is converted.

    Attributes:
        force: Whether what is at the destination already may be lost.
        output_format: ``raw``, or ``vhd``, a fixed VHD: the disk up to a whole MiB, and a footer.
            Each digest is one of all that is written.
        round_size: Bytes of which the size of the output, without a footer, becomes a multiple: 512
            or a multiple of that, at most 64 TiB. What is added is zeros.
        target_is_zero: Whether a block device reads as zeros already, so that zeros are left out.
        holes: Which zeros become holes. ``zeros``: what is not stored, and stored zeros of
            `sparse_size`. ``source``: only what is not stored, by block or, in a differencing disk,
            by sector; stored zeros are written. ``none``: nothing; all is written.
        sparse_size: Stored zeros that fill this many bytes, aligned, become holes: a power of
            two from 512 to 1 MiB. 0 is the same as `holes` ``none``.
        workers: Threads that copy; by default as many as there are processors, up to four.
        clone: Whether the output may share storage with the source, where the host can do that.
            Then zeros that are stored in the source stay stored. Holes of a file that are stored
            zeros are not shared where `holes` is ``source``.
        sync: Whether to wait until the output is on stable storage before it appears.
        hash_algorithm: What digest to take on the way, such as ``sha256``, or several. One thread
            writes, in order, and nothing is cloned.
        hash_source: Whether to take the same digests, or SHA-256, of each file that is read.
        verify: Whether to read the output back from storage before it appears, and compare all of
            it that is not lost.
        strict: Whether to refuse what is otherwise only a warning.
        max_virtual_disk_size: Most bytes that the disk may have.
        allow_changed: Whether the source may change while it is read; then the result may be a
            mixture of two states.
        state: Where to record which version of the disk the output holds, for `apply`.
        update: Whether to change an output that is there, in place, where it differs; it is read
            for that. Without a state file that says what it holds, this takes `force`.
        map_out: Where to write a map of the output, as `qemu-img map` writes it in JSON. With it
            or `bmap` one thread writes, in order, and nothing is cloned.
        bmap: Where to write the block map of the output for bmaptool.
        resume: Whether to keep what was written if this fails, beside the output, and to go on with
            what an earlier run has kept. With `hash_algorithm` that is read once more.
        look_for_newer: Whether to look for checkpoints beside the source, and to warn if one of
            them has a newer state of the disk.
        progress: Called from this thread about ten times a second with the bytes moved so far and
            the bytes to be moved, once more when all are moved, and never after the output has
            appeared. What it raises ends the conversion.
    """

    force: bool = False
    output_format: OutputFormat = "raw"
    round_size: int | None = None
    target_is_zero: bool = False
    holes: Holes = "zeros"
    sparse_size: int = DEFAULT_SPARSE_SIZE
    workers: int | None = None
    clone: bool = True
    sync: bool = True
    hash_algorithm: str | Sequence[str] | None = None
    hash_source: bool = False
    verify: bool = False
    strict: bool = False
    max_virtual_disk_size: int | None = None
    allow_changed: bool = False
    state: AnyPath | None = None
    update: bool = False
    map_out: AnyPath | None = None
    bmap: AnyPath | None = None
    resume: bool = False
    look_for_newer: bool = True
    progress: ProgressCallback = no_progress

    def __post_init__(self) -> None:
        """Check the numbers and the name.

        Raises:
            ValueError: One is out of its range, there is no such algorithm, or two contradict
                each other.
        """
        for name, kinds in (("holes", Holes), ("output_format", OutputFormat)):
            known, value = get_args(kinds), getattr(self, name)
            if value not in known:
                raise ValueError(f"{name} must be one of {', '.join(known)}, not {value!r}")
        self._check_shape()
        if self.holes == "source" and (self.update or not self.sparse_size):
            raise ValueError("what is stored is kept by holes, not by update or a sparse_size of 0")
        size = self.sparse_size
        in_range = MIN_SPARSE_SIZE <= size <= MAX_SPARSE_SIZE and size.bit_count() == 1
        if size and not in_range:
            raise ValueError(f"sparse_size {size} is neither 0 nor a power of two in its range")
        if self.workers is not None and self.workers < 1:
            raise ValueError(f"workers must be at least 1, not {self.workers}")
        for name in self.hash_algorithms:
            require_algorithm(name)
        if (self.state is not None or self.update) and self.allow_changed:
            raise ValueError("state and update need one version of a disk, allow_changed mixes two")
        if self.resume and (self.update or self.allow_changed):
            raise ValueError("resume goes on with one source, and makes a new file of it")
        if self.update and self.target_is_zero:
            raise ValueError("update expects that the target holds something")

    def _check_shape(self) -> None:
        """Check what makes the output something else than the disk alone, or tells of it."""
        unit = vhd.SIZE_UNIT if self.output_format == "vhd" else vhd.SECTOR_SIZE
        size = self.round_size
        if size is not None and (size % unit or not unit <= size <= MAX_ROUND_SIZE):
            raise ValueError(f"round_size must be a multiple of {unit} up to 64 TiB, not {size}")
        is_kept = self.state is not None or self.update
        if is_kept and (size is not None or self.output_format != "raw"):
            raise ValueError(
                "what is changed in place later is the disk alone: raw, and not rounded"
            )
        if (self.map_out is not None or self.bmap is not None) and (self.update or self.resume):
            raise ValueError("a map is one of all that is written, which update and resume are not")

    @property
    def hash_algorithms(self) -> tuple[str, ...]:
        """The digests to take, in the order in which they were asked for."""
        names = self.hash_algorithm or ()
        return (names,) if isinstance(names, str) else tuple(names)


DEFAULTS = ConvertOptions()


@dataclass(frozen=True, slots=True)
class ConversionResult:
    """What a conversion did, in bytes of the virtual disk.

    Attributes:
        virtual_disk_size: All of it.
        data_bytes: Stored in the images; the rest is stored nowhere and reads as zeros.
        cloned_bytes: Of these, not copied, but shared between the images and the output.
        written_bytes: Handed to the sink; what is neither cloned nor written are holes. Of an
            update, what differed, zeros included.
        lost_ranges: (offset, length) of what could not be read and became zeros, in order; only
            if the disk was opened to be salvaged. At most 10,000: of more, those with the least
            between them are given as one.
        warnings: What is unusual about any file of the disk, or about the disk, though its bytes
            are right; also how files have changed meanwhile, if that was allowed.
        digests: Of the whole output, in hexadecimal, by their algorithms, as they were asked for.
        lost_bytes: How much became zeros in all.
        unlisted_ranges: How many of the lost ranges are not in `lost_ranges` by themselves.
        resumed_bytes: The first bytes of the disk, which an earlier run has written; the other
            numbers do not count them.
        begun_anew: Why nothing was taken from an earlier run that has left something; or empty.
        source_digests: The same of each file of the disk, as `VirtualDisk.files` has them; nothing
            of a file that cannot be read as a whole and is salvaged.
        added_bytes: What follows the disk in the output: zeros up to a round size, and a footer.
    """

    virtual_disk_size: int
    data_bytes: int
    cloned_bytes: int
    written_bytes: int
    lost_ranges: tuple[Range, ...] = ()
    warnings: tuple[NamedFinding, ...] = ()
    digests: Mapping[str, str] = field(default_factory=dict, hash=False)
    lost_bytes: int = 0
    unlisted_ranges: int = 0
    resumed_bytes: int = 0
    begun_anew: str = ""
    source_digests: tuple[Mapping[str, str], ...] = field(default=(), hash=False)
    added_bytes: int = 0

    @property
    def digest(self) -> str | None:
        """The first of `digests`, or None if none was asked for."""
        return next(iter(self.digests.values()), None)


def convert_disk(
    source: AnyFile | VirtualDisk, destination: AnyPath | Sink, options: ConvertOptions = DEFAULTS
) -> ConversionResult:
    """Convert a virtual disk to a raw image, completely or not at all.

    Args:
        source: A VHDX file, by its path or as a binary file object, which is only ever read; or
            an open disk, whose opening has the options for parents, logs and damage.
        destination: The name of the raw image, which appears when it is complete; a block
            device; or a sink, which is committed at the end, and aborted on any failure but that
            of an option that is out of its range.
        options: How to convert it.

    Raises:
        ImageError: A file is no VHDX, is not supported, is damaged or was changed meanwhile.
        ParentError: A parent is missing, is the wrong one, or lies where it may not.
        OutputError: The output exists or cannot be made.
        OSError: The host could not read or write.
        ValueError: An option is out of its range, or the sink cannot do what is asked.
        TypeError: The destination is neither a path nor a sink.
    """
    _require_path_or_sink(destination)
    with ExitStack() as opened:
        sink = destination if isinstance(destination, Sink) else None
        resumption, state = None, None
        try:
            disk = source
            if not isinstance(disk, VirtualDisk):
                disk = opened.enter_context(open_disk(source))
            warnings = check_acceptable(
                disk,
                options.max_virtual_disk_size,
                strict=options.strict,
                # What is converted to apply its checkpoints later is not the newest state.
                may_be_older=options.state is not None or not options.look_for_newer,
            )
            shape = shape_of(disk, options.output_format, options.round_size)
            warnings += tuple(find_misplaced_backup(disk, shape))
            state = _state_path(disk, destination, options)
            if options.resume:
                resumption = _open_resumption(destination, disk, options, shape)
                sink = resumption.sink
            elif not isinstance(destination, Sink):
                sink = _open_sink(destination, disk, options, state, shape)
            assert sink is not None, "given or opened"
            maps = _open_maps(disk, sink, options, shape, opened)
            writing = Writing(disk, sink, options, shape, maps=maps, resumption=resumption)
            warnings += writing.run()
            result = _result_of(writing, warnings)
        except BaseException as error:
            _abort(error, sink, resumption)
            if isinstance(error, UntoldResultError) and state is not None and sink is not None:
                assert isinstance(disk, VirtualDisk), "it is complete"
                _save_state(state, sink, disk)
            raise
        if resumption is not None:
            resumption.end()
        if state is not None:
            _save_state(state, sink, disk)
        return result


def _open_resumption(
    destination: AnyPath | Sink, disk: VirtualDisk, options: ConvertOptions, shape: Shape
) -> Resumption:
    if isinstance(destination, Sink) or disk.chain.salvaging:
        raise ValueError("to be resumed, a sound disk has to go to the path of a file")
    return Resumption(disk, os.fspath(destination), options, shape.size)


def _open_maps(
    disk: VirtualDisk, sink: Sink, options: ConvertOptions, shape: Shape, opened: ExitStack
) -> list[MapSink]:
    """Begin the maps of an output that were asked for; what is not complete is removed again."""
    if options.map_out is None and options.bmap is None:
        return []
    from vhdx2raw.output.maps import open_maps  # noqa: PLC0415 - few runs have a need

    taken = [sink.name] if options.state is None else [sink.name, options.state]
    paths, inputs = (options.map_out, options.bmap), disk.chain.identities
    maps = open_maps(*paths, shape.size, replace=options.force, inputs=inputs, taken=taken)
    for each in maps:
        opened.callback(each.abort)
    return maps


def _state_path(
    disk: VirtualDisk, destination: AnyPath | Sink, options: ConvertOptions
) -> str | None:
    """Return where the state is to be kept, if it is, and make sure that this will be possible."""
    path = None if options.state is None else os.fspath(options.state)
    if isinstance(destination, Sink):
        if options.update:
            raise ValueError("an update needs the path of what is updated")
        if path is not None and destination.readable_path is None:
            raise ValueError("what goes to this sink has no state that could be kept")
    elif options.update:
        path = find_state(destination, path)
    if path is not None:
        require_version(disk)
        name = destination.name if isinstance(destination, Sink) else os.fspath(destination)
        require_writable(path, name, disk)
    return path


def _save_state(path: str, sink: Sink, disk: VirtualDisk) -> None:
    try:
        write_state(path, observe(sink.name, disk))
    except BaseException as error:
        add_note(error, f"{sink.name}: {STATE_MISSING}")
        raise


def _abort(error: BaseException, sink: Sink | None, resumption: Resumption | None) -> None:
    """Leave nothing behind, or only what is worth keeping."""
    if resumption is not None:
        # What was read of a source that is not sound, or changes, is not worth keeping.
        resumption.discard() if isinstance(error, ImageError) else resumption.keep()
    if sink is None:
        return
    sink.abort()
    if isinstance(sink, BlockDeviceSink) and sink.left_incomplete:
        add_note(error, f"{sink.name}: {LEFT_INCOMPLETE}")
    if isinstance(sink, DifferenceSink) and sink.left_incomplete:
        add_note(error, f"{sink.name}: {LEFT_MIXED}")


def _require_path_or_sink(destination: object) -> None:
    if not isinstance(destination, str | os.PathLike | Sink):
        raise TypeError(
            f"the destination is neither a path nor a sink, but {type(destination).__name__};"
            " for an open file or a pipe use StreamSink(file)"
        )


def _open_sink(
    destination: AnyPath,
    disk: VirtualDisk,
    options: ConvertOptions,
    state: str | None,
    shape: Shape,
) -> Sink:
    if shape.size != disk.size and is_block_device(destination):
        problem = "is a block device, which is not made longer than the disk"
        raise OutputError(problem, path=os.fspath(destination), remedy="write to a file")
    if options.update:
        return open_update(disk, destination, state, force=options.force)
    return open_sink(
        destination,
        shape.size,
        replace=options.force,
        inputs=disk.chain.identities,
        target_is_zero=options.target_is_zero,
    )


def _result_of(writing: Writing, warnings: tuple[NamedFinding, ...]) -> ConversionResult:
    copy, sink, resumption = writing.copy, writing.sink, writing.resumption
    written = copy.written_bytes
    if isinstance(sink, DifferenceSink):
        written = sink.written_bytes + sink.zeroed_bytes
    return ConversionResult(
        writing.disk.size,
        copy.data_bytes,
        copy.cloned_bytes,
        written,
        copy.lost.merged(),
        warnings,
        writing.digests,
        copy.lost.total_bytes,
        copy.lost.unlisted,
        resumption.start if resumption else 0,
        resumption.begun_anew if resumption else "",
        writing.source_digests,
        writing.shape.size - writing.disk.size,
    )
