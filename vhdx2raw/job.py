"""One whole conversion, from the names of the files to the result: what programs call."""

from __future__ import annotations

from contextlib import ExitStack

from vhdx2raw.chain import AnyPath, Chain, open_chain
from vhdx2raw.convert import DEFAULT_SPARSE_SIZE, ConversionResult
from vhdx2raw.convert import convert as convert_chain
from vhdx2raw.progress import ProgressCallback, say_nothing
from vhdx2raw.sinks import Sink, open_sink
from vhdx2raw.source_object import AnyFile


def convert(
    source: AnyFile | Chain,
    destination: AnyPath | Sink,
    *,
    force: bool = False,
    sparse_size: int = DEFAULT_SPARSE_SIZE,
    workers: int | None = None,
    clone: bool = True,
    sync: bool = True,
    hash_algorithm: str | None = None,
    verify: bool = False,
    allow_changed: bool = False,
    progress: ProgressCallback = say_nothing,
) -> ConversionResult:
    """Convert a virtual disk to a raw image, completely or not at all.

    Args:
        source: A VHDX file, by its path or as a binary file object, which is only ever read; or
            a chain from `open_chain`, which has the options for parents, logs and damage.
        destination: The name of the raw image, which appears when it is complete; a block
            device; or a sink.
        force: Whether what is at the destination already may be lost.
        sparse_size: Stored zeros that fill this many bytes, aligned, become holes: a power of
            two from 512 to 1 MiB. 0 writes everything, holes included.
        workers: Threads that copy; by default as many as there are processors.
        clone: Whether the output may share storage with the source where the host can do that.
        sync: Whether to wait until the output is on stable storage before it appears.
        hash_algorithm: What digest to take on the way, such as ``sha256``; see `digest` of the
            result.
        verify: Whether to read the output back from storage before it appears, and compare.
        allow_changed: Whether the source may change while it is read.
        progress: Called about ten times a second with the bytes moved so far and the bytes to be
            moved. What it raises ends the conversion.

    Raises:
        ImageError: A file is no VHDX, is not supported, is damaged or was changed meanwhile.
        ParentError: A parent is missing, is the wrong one, or lies where it may not.
        OutputError: The output exists or cannot be made.
        OSError: The host could not read or write.
        ValueError: A number is out of its range, or there is no such algorithm.
    """
    with ExitStack() as opened:
        if not isinstance(source, Chain):
            source = opened.enter_context(open_chain(source))
        return convert_chain(
            source,
            _open_sink(destination, source, force=force, direct=sync),
            sparse_size=sparse_size,
            workers=workers,
            clone=clone,
            sync=sync,
            hash_algorithm=hash_algorithm,
            verify=verify,
            allow_changed=allow_changed,
            progress=progress,
        )


def _open_sink(destination: AnyPath | Sink, chain: Chain, *, force: bool, direct: bool) -> Sink:
    if isinstance(destination, Sink):
        return destination
    size = chain.virtual_disk_size
    return open_sink(destination, size, replace=force, inputs=chain.identities, direct=direct)
