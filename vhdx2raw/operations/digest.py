"""The digest of a whole disk, holes as the zeros that they are."""

from __future__ import annotations

from collections.abc import Sequence

from vhdx2raw.disk.chain import Chain
from vhdx2raw.disk.virtual_disk import VirtualDisk
from vhdx2raw.errors import TruncatedImageError
from vhdx2raw.operations.copying import Copy
from vhdx2raw.operations.progress import ProgressCallback, no_progress, throttled
from vhdx2raw.output.hashes import DEFAULT_ALGORITHM, new_hash
from vhdx2raw.output.hashing import HashingSink
from vhdx2raw.output.null import NullSink
from vhdx2raw.units import MIB


def digest(
    disk: VirtualDisk,
    algorithm: str = DEFAULT_ALGORITHM,
    *,
    progress: ProgressCallback = no_progress,
) -> str:
    """Return the digest of the bytes of a disk, which is that of the raw image, in hexadecimal.

    Args:
        disk: A virtual disk.
        algorithm: Such as ``sha256``, ``md5`` or ``sha3-256``; any of `hashlib` with a fixed size.
        progress: Called from this thread about ten times a second, and once more at the end, with
            bytes of the virtual disk. What it raises ends the work.

    Raises:
        ImageError: A file turned out to be truncated, or was changed meanwhile.
        OSError: The host could not read.
        ValueError: There is no such algorithm.
    """
    return digests(disk, [algorithm], progress=progress)[algorithm]


def digests(
    disk: VirtualDisk, algorithms: Sequence[str], *, progress: ProgressCallback = no_progress
) -> dict[str, str]:
    """Return several digests, by their algorithms, of a disk that is read once.

    Arguments and errors are those of `digest`.
    """
    disk.chain.watch()
    sinks = HashingSink.stack(NullSink(), algorithms)
    copy = Copy(disk, sinks[0], holes="none", sparse_size=0, clone=False)
    copy.run(1, progress)
    for start, length in copy.lost.merged():
        disk.lost.add(start, length)
    disk.chain.require_unchanged()
    progress(disk.size, disk.size)
    found = {sink.algorithm: sink.hexdigest for sink in sinks}
    return {algorithm: found[algorithm] for algorithm in algorithms}


def total_size(chain: Chain) -> int:
    """Return the bytes of all files of a chain, as they are stored."""
    return sum(image.source.file.size for image in chain.images)


def digest_files(
    chain: Chain, algorithms: Sequence[str], *, progress: ProgressCallback = no_progress
) -> tuple[dict[str, str], ...]:
    """Return the digests of each file of a chain as it is stored, by their algorithms.

    Of a chain that is salvaged, a file that cannot be read as a whole has none.

    Args:
        chain: The files, the child first.
        algorithms: As those of `digest`.
        progress: Called from this thread about ten times a second, with bytes of the files.

    Raises:
        TruncatedImageError: A file has become shorter.
        OSError: The host could not read.
    """
    report, total, done = throttled(progress), total_size(chain), 0
    found: list[dict[str, str]] = []
    for image in chain.images:
        file = image.source.file
        hashes = {algorithm: new_hash(algorithm) for algorithm in algorithms}
        try:
            for start in range(0, file.size, MIB):
                data = file.pread(start, min(MIB, file.size - start))
                for each in hashes.values():
                    each.update(data)
                report(done + start, total)
        except (OSError, TruncatedImageError):
            if not chain.salvaging:
                raise
            hashes.clear()
        done += file.size
        found.append({algorithm: each.hexdigest() for algorithm, each in hashes.items()})
    return tuple(found)
