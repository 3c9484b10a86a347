"""A digest of the whole disk, taken on its way to another sink."""

from __future__ import annotations

from collections.abc import Iterable

from vhdx2raw.output.base import Sink
from vhdx2raw.output.hashes import DEFAULT_ALGORITHM, new_hash
from vhdx2raw.zeros import MAX_BUFFER_SIZE, ZEROS


class HashingSink(Sink):
    """Passes everything on to another sink, and hashes it, holes as the zeros that they are.

    It takes everything in order, from one thread, and nothing cloned. For several digests, one
    such sink passes on to the next.
    """

    sequential = True
    zeroing_is_work = True

    def __init__(self, inner: Sink, algorithm: str = DEFAULT_ALGORITHM) -> None:
        """Hash what goes to `inner`.

        Raises:
            ValueError: There is no such algorithm.
        """
        self._inner = inner
        self.algorithm = algorithm
        self._hash = new_hash(algorithm)
        self._position = 0
        self.makes_holes = inner.makes_holes
        self.piece_size = inner.piece_size
        self.name = inner.name
        self.readable_path = inner.readable_path

    @property
    def hexdigest(self) -> str:
        """The digest of all that has passed: after `commit`, of the disk."""
        return self._hash.hexdigest()

    @classmethod
    def stack(cls, inner: Sink, algorithms: Iterable[str]) -> list[HashingSink]:
        """Return a sink for each algorithm, the first one to write to; `inner` is the last.

        Raises:
            ValueError: There is no such algorithm.
        """
        sinks: list[HashingSink] = []
        for algorithm in algorithms:
            sinks.insert(0, cls(sinks[0] if sinks else inner, algorithm))
        return sinks

    def take(self, data: bytes) -> None:
        """Hash what the inner sink holds already; it must be all that comes before the rest."""
        self._advance(self._position, len(data))
        self._hash.update(data)
        if isinstance(self._inner, HashingSink):
            self._inner.take(data)

    def write(self, virtual_offset: int, data: memoryview) -> None:
        self._advance(virtual_offset, len(data))
        self._hash.update(data)
        self._inner.write(virtual_offset, data)

    def zero(self, virtual_offset: int, length: int) -> None:
        self._advance(virtual_offset, length)
        for start in range(0, length, MAX_BUFFER_SIZE):
            self._hash.update(ZEROS[: length - start])
        self._inner.zero(virtual_offset, length)

    def _advance(self, virtual_offset: int, length: int) -> None:
        assert virtual_offset == self._position, "a digest needs every byte in its turn"
        self._position += length

    def flush(self) -> None:
        self._inner.flush()

    def commit(self) -> None:
        self._inner.commit()

    def abort(self) -> None:
        self._inner.abort()
