"""A file that is read where it is: the bytes of a URL, as those of any other source.

What is known to be read soon (`prefetch`) is joined to large requests, several of which are under
way; anything else is read with some of what follows it, and kept for a while.
"""

from __future__ import annotations

import hashlib
import io
from bisect import bisect_right
from collections.abc import Iterator
from concurrent.futures import CancelledError, Future, wait
from itertools import count
from threading import RLock

from vhdx2raw.errors import RemoteError
from vhdx2raw.source.base import Fetched, Identity, Source, Status
from vhdx2raw.source.remote.network import Network
from vhdx2raw.source.remote.options import DEFAULTS, RemoteOptions
from vhdx2raw.source.remote.stores import open_store
from vhdx2raw.source.remote.transfer import Transfer, Version
from vhdx2raw.source.remote.url import RemoteUrl
from vhdx2raw.units import KIB, MIB, ceil_div
from vhdx2raw.zeros import is_zero

REMOTE = -3
"""Stands for the device in the identity of a file that is no file of the host."""
FIRST_SIZE = 320 * KIB
"""Bytes of the first request: everything before the log (MS-VHDX 2.2)."""
WINDOW_SIZE = 256 * KIB
"""The least that is asked for; twice as much each time where reads follow one another."""
REQUEST_SIZE = 4 * MIB
"""The most that is asked for at once."""
WINDOW_ALIGNMENT = 64 * KIB
MAX_GAP = 64 * KIB
"""Bytes between two ranges that are fetched with them rather than in two requests."""
READY_SIZE = 8 * MIB
"""Bytes that are fetched and not read yet while as many requests as may be are under way."""
WAKE_SECONDS = 0.1
UNWATCHED = (
    "its server gives neither an ETag nor a date, so that a change is noticed only by its size and"
    " its headers"
)
NANOSECONDS = 10**9
_numbers = count()


class _Planned:
    """A range that is being fetched, or will be when it is long enough or needed."""

    __slots__ = ("again", "end", "future", "start", "unread")

    def __init__(self, start: int, end: int) -> None:
        self.start, self.end, self.unread = start, end, end - start
        self.again = False
        self.future: Future[memoryview] | None = None


class RemoteSource(Source):
    """A file on a web server or in an object store, in the version that was there first."""

    def __init__(
        self, url: RemoteUrl, options: RemoteOptions = DEFAULTS, *, is_guarded: bool = False
    ) -> None:
        """Open the file at a URL.

        Args:
            url: The file.
            options: How it is read.
            is_guarded: Whether it is named by an image, and not by the user. Then a web server
                must not lead to another host.

        Raises:
            RemoteError: It does not exist, needs credentials, or cannot be read.
            OSError: The file with certificates cannot be read.
        """
        self.url, self.name = url, url.name
        self.read_ahead = options.connections * REQUEST_SIZE + READY_SIZE
        self._number = next(_numbers)
        self._changing = RLock()
        self._planned: list[_Planned] = []  # by start
        self._growing: _Planned | None = None
        self._zeros: list[tuple[int, int]] = []  # as far as it is known
        self._under_way = 0
        self._window = 0, WINDOW_SIZE  # where the last one ended, and its size
        self._is_closed = False
        place = open_store(url, options, is_guarded=is_guarded)
        self._network = Network.enter(options.connections)
        self._transfer = Transfer(self._network, place, self.name, options.retries)
        try:
            version = self._read_start()
        except BaseException:
            self.close()
            raise
        self.size = version.size
        self.identity = _identity_of(self.name, version)
        self.unwatched = "" if version.is_known else UNWATCHED

    def _read_start(self) -> Version:
        """Fetch what every reader begins with; return the version of the file."""
        data = self._result(self._transfer.start(0, FIRST_SIZE))
        self._network.cache.put(self._number, 0, data)
        self._checked = self._transfer.fetched.requests
        assert self._transfer.version is not None, "there was an answer"
        return self._transfer.version

    @property
    def descriptor(self) -> int:
        """Refuse: the kernel knows nothing of the file.

        Raises:
            UnsupportedOperation: Always.
        """
        raise io.UnsupportedOperation("nothing can be taken from a URL but by reading it")

    @property
    def fetched(self) -> Fetched:
        return self._transfer.fetched

    def status(self) -> Status:
        """Return what is known, asked for once more if anything was read since it was asked.

        Raises:
            SourceChangedError: The file is another one now.
        """
        if self._transfer.fetched.requests > self._checked:
            self._network.cache.forget(self._number)  # so the headers are read anew as well
            self._read_start()
        version = self._transfer.version
        assert version is not None, "there was an answer"
        if version.e_tag or not version.modified:
            return Status(version.size, version=version.e_tag)
        return Status(version.size, int(version.modified.timestamp()) * NANOSECONDS)

    def iter_without_holes(self, file_offset: int, length: int) -> Iterator[tuple[int, int]]:
        """Yield what is not known to be zeros, of what is read more than once."""
        done, end = file_offset, file_offset + length
        with self._changing:
            zeros = [span for span in self._zeros if span[0] < end and span[1] > done]
        for start, stop in zeros:
            if done < start:
                yield done, start - done
            done = stop
        if done < end:
            yield done, end - done

    def prefetch(self, file_offset: int, length: int, *, again: bool = False) -> None:
        end = min(file_offset + length, self.size)
        with self._changing:
            known = self._find(file_offset)
            if known is not None and end <= known.end:
                known.unread += end - file_offset
                return
            if again:
                self._begin(self._growing)
            while file_offset < end:
                file_offset = self._plan(file_offset, end)
                if again and self._growing:
                    self._growing.again = True
                    self._begin(self._growing)

    def _plan(self, start: int, end: int) -> int:
        """Plan to fetch a range as far as one request may go; return where that ends."""
        last = self._growing
        if last is not None and 0 <= start - last.end <= MAX_GAP:
            stop = min(end, last.start + REQUEST_SIZE)
            if start < stop:
                last.end = stop
                last.unread += stop - start
                return stop
        self._begin(last)
        stop = min(end, start + REQUEST_SIZE)
        self._growing = planned = _Planned(start, stop)
        self._planned.insert(bisect_right(self._planned, start, key=_start_of), planned)
        return stop

    def _begin(self, planned: _Planned | None) -> None:
        """Ask for a range that was planned, if nobody has yet."""
        if planned is None or planned.future is not None:
            return
        if planned is self._growing:
            self._growing = None
        self._forget_unread()
        self._under_way += 1
        planned.future = self._transfer.start(planned.start, planned.end)
        planned.future.add_done_callback(self._note_end)

    def _note_end(self, _future: Future[memoryview]) -> None:
        with self._changing:
            self._under_way -= 1
            if not (self._under_way or self._is_closed):
                self._begin(self._growing)

    def _forget_unread(self) -> None:
        """Drop what was planned and fetched, but never read, when there is too much of it."""
        begun = [planned for planned in self._planned if planned.future is not None]
        if sum(planned.end - planned.start for planned in begun) > self.read_ahead + READY_SIZE:
            for planned in begun:
                if planned.future is not None and planned.future.done():
                    self._planned.remove(planned)

    def _find(self, place: int) -> _Planned | None:
        """Return what was planned and has a byte in it."""
        index = bisect_right(self._planned, place, key=_start_of)
        found = self._planned[index - 1] if index else None
        return found if found and place < found.end else None

    def _fill(self, file_offset: int, buffer: memoryview) -> int:
        done, length = 0, len(buffer)
        while done < length:
            place = file_offset + done
            if length - done > REQUEST_SIZE:
                self.prefetch(place, min(self.read_ahead - READY_SIZE, length - done))
            data = self._read(place, length - done)[: length - done]
            buffer[done : done + len(data)] = data
            done += len(data)
        return done

    def _read(self, place: int, length: int) -> memoryview:
        """Return what stands at an offset, at least one byte."""
        with self._changing:
            planned = self._find(place)
            if planned is not None:
                self._begin(planned)
                planned.unread -= min(length, planned.end - place)
                if planned.unread <= 0:
                    self._planned.remove(planned)
                future = planned.future
        if planned is not None and future is not None:
            data = self._result(future)
            if planned.again:
                self._keep(planned, data)
            return data[place - planned.start :]
        known = self._network.cache.find(self._number, place)
        return known if known is not None else self._read_window(place, length)

    def _keep(self, planned: _Planned, data: memoryview) -> None:
        """Keep what is read more than once, of zeros only where they are."""
        with self._changing:
            if not planned.again:
                return
            planned.again = False
            if not all(is_zero(data[at : at + MIB]) for at in range(0, len(data), MIB)):
                self._network.cache.put(self._number, planned.start, data)
            elif self._zeros and self._zeros[-1][1] == planned.start:
                self._zeros[-1] = self._zeros[-1][0], planned.end
            else:
                self._zeros.append((planned.start, planned.end))

    def _read_window(self, place: int, length: int) -> memoryview:
        """Read with some of what is around it, and keep, what nobody has planned to read."""
        start = place - place % WINDOW_ALIGNMENT
        last_end, last_size = self._window
        follows = last_end == start
        size = min(2 * last_size, REQUEST_SIZE) if follows else WINDOW_SIZE
        needed = ceil_div(place + length - start, WINDOW_ALIGNMENT) * WINDOW_ALIGNMENT
        end = min(self.size, start + min(max(size, needed), REQUEST_SIZE))
        self._window = end, size
        data = self._result(self._transfer.start(start, end))
        self._network.cache.put(self._number, start, data)
        return data[place - start :]

    def _result(self, future: Future[memoryview]) -> memoryview:
        while not future.done():
            # Not without end: the system may hand a signal to a thread of obstore, and then it is
            # only looked at when this one, the main thread maybe, wakes up.
            wait((future,), WAKE_SECONDS)
        try:
            return future.result()
        except CancelledError:
            raise RemoteError("was no longer waited for", path=self.name) from None

    def cancel(self) -> None:
        with self._changing:
            self._planned.clear()
            self._growing = None
        self._transfer.cancel()

    def close(self) -> None:
        if not self._is_closed:
            self._is_closed = True
            self.cancel()
            self._network.cache.forget(self._number)
            self._network.leave()


def _start_of(planned: _Planned) -> int:
    return planned.start


def _identity_of(name: str, version: Version) -> Identity:
    """Return what is the same for the same version of a file under the same URL."""
    text = f"{name} {version.e_tag or version.modified}".encode("utf-8", "surrogateescape")
    return REMOTE, int.from_bytes(hashlib.blake2b(text, digest_size=7).digest(), "big")
