"""The digest of a whole disk, holes as the zeros that they are."""

from __future__ import annotations

from contextlib import closing

from vhdx2raw.ahead import map_ahead
from vhdx2raw.disk import VirtualDisk
from vhdx2raw.hashes import DEFAULT_ALGORITHM, new_hash
from vhdx2raw.pieces import Piece, iter_pieces
from vhdx2raw.progress import ProgressCallback, now_and_then, say_nothing
from vhdx2raw.zeros import MAX_BUFFER_SIZE, ZEROS


def digest(
    disk: VirtualDisk,
    algorithm: str = DEFAULT_ALGORITHM,
    *,
    progress: ProgressCallback = say_nothing,
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

    def read(piece: Piece) -> memoryview:
        if not piece.data:
            return ZEROS[: piece.length]
        data = memoryview(bytearray(piece.length))
        disk.pread_into(piece.virtual_offset, data)
        return data

    hashing = new_hash(algorithm)
    tell = now_and_then(progress)
    done = 0
    pieces = iter_pieces(disk.extents(), MAX_BUFFER_SIZE, cut_zeros=True)
    # One thread reads ahead while this one hashes.
    with closing(map_ahead(read, pieces, threads=1)) as parts:
        for part in parts:
            hashing.update(part)
            done += len(part)
            tell(done, disk.size)
    disk.chain.require_unchanged()
    progress(done, disk.size)
    return hashing.hexdigest()
