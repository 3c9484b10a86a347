"""Sinks that record their calls, and sinks that fail."""

import os
from collections.abc import Callable
from threading import Lock

from tests.support.builder import MIB
from vhdx2raw.output.base import Sink

Call = tuple[str] | tuple[str, int, int]
"""("write", "zero" or "clone", virtual_offset, length), or ("flush",), ("commit",), ("abort",)."""


class StopEverything(BaseException):
    """What no handler of errors may catch."""


class RecordingSink(Sink):
    """Records every call in order, from any number of threads, and what was written."""

    name = "a recorder"
    piece_size = MIB

    def __init__(
        self,
        *,
        sequential: bool = False,
        makes_holes: bool = True,
        clones: bool = False,
        zeroing_is_work: bool = False,
    ) -> None:
        self.sequential = sequential
        self.makes_holes = makes_holes
        self.zeroing_is_work = zeroing_is_work
        self.clones = clones
        self.refused_clones = 0
        self.calls: list[Call] = []
        self._written: dict[int, bytes] = {}
        self._lock = Lock()

    def write(self, virtual_offset: int, data: memoryview) -> None:
        with self._lock:
            self.calls.append(("write", virtual_offset, len(data)))
            self._written[virtual_offset] = bytes(data)

    def zero(self, virtual_offset: int, length: int) -> None:
        with self._lock:
            self.calls.append(("zero", virtual_offset, length))

    def clone(self, virtual_offset: int, descriptor: int, file_offset: int, length: int) -> bool:
        assert virtual_offset % 4096 == file_offset % 4096 == length % 4096 == 0
        with self._lock:
            if not self.clones:
                self.refused_clones += 1
                return False
            self.calls.append(("clone", virtual_offset, length))
            self._written[virtual_offset] = os.pread(descriptor, length, file_offset)
        return True

    def flush(self) -> None:
        with self._lock:
            self.calls.append(("flush",))

    def commit(self) -> None:
        with self._lock:
            self.calls.append(("commit",))

    def abort(self) -> None:
        with self._lock:
            self.calls.append(("abort",))

    @property
    def names(self) -> list[str]:
        """The calls without their places."""
        return [call[0] for call in self.calls]

    @property
    def ranges(self) -> list[tuple[str, int, int]]:
        """What was written, made zero or cloned, by virtual offset."""
        return sorted(
            (call for call in self.calls if len(call) == 3), key=lambda call: (call[1], call[2])
        )

    def contents(self, size: int) -> bytes:
        """Give the disk of `size` bytes, every byte of which must have come exactly once."""
        disk = bytearray()
        for name, virtual_offset, length in self.ranges:
            assert virtual_offset == len(disk), f"gap or overlap at {len(disk):#x}"
            disk += bytes(length) if name == "zero" else self._written[virtual_offset]
        assert len(disk) == size
        return bytes(disk)


class FailingSink(RecordingSink):
    """Calls `fail`, which may raise, before each call of one name; what fails is not recorded."""

    def __init__(self, name: str, fail: Callable[[int], None], *, sequential: bool = False) -> None:
        """Call `fail` with 0, 1, 2, ... before each call of `name`; it may come from any thread."""
        super().__init__(sequential=sequential, makes_holes=not sequential)
        self._name = name
        self._fail = fail
        self._count = 0
        self._count_lock = Lock()

    def _count_call(self, name: str) -> None:
        if name != self._name:
            return
        with self._count_lock:
            number = self._count
            self._count += 1
        self._fail(number)

    def write(self, virtual_offset: int, data: memoryview) -> None:
        self._count_call("write")
        super().write(virtual_offset, data)

    def zero(self, virtual_offset: int, length: int) -> None:
        self._count_call("zero")
        super().zero(virtual_offset, length)

    def flush(self) -> None:
        self._count_call("flush")
        super().flush()

    def commit(self) -> None:
        self._count_call("commit")
        super().commit()


def fail_at(number: int, error: BaseException) -> Callable[[int], None]:
    """Give a function for a FailingSink: raise `error` at call `number`, and only there."""

    def fail(count: int) -> None:
        if count == number:
            raise error

    return fail
