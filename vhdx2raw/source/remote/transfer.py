"""Ranges of one file, fetched: each answer is held against what was asked for.

Whoever waits for a range can give it up at any time.
"""

from __future__ import annotations

import random
import time
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from datetime import datetime, timezone
from threading import Lock
from typing import TYPE_CHECKING, NamedTuple

import obstore
from obstore.exceptions import BaseError

from vhdx2raw.errors import RemoteError, SourceChangedError, Vhdx2rawError
from vhdx2raw.findings import Finding
from vhdx2raw.rules import Rule
from vhdx2raw.source.base import Fetched
from vhdx2raw.source.remote.failures import CHANGED, Failure, judge
from vhdx2raw.source.remote.network import Network
from vhdx2raw.source.remote.stores import Place
from vhdx2raw.units import MIB

if TYPE_CHECKING:
    from obstore import GetOptions, GetResult

FIRST_PAUSE, LONGEST_PAUSE = 0.1, 10.0
"""Seconds between two tries; each pause is up to twice as long as the one before."""
PIECE_SIZE = MIB // 2
"""Bytes that are taken from obstore at once."""
NO_DATE = datetime(1970, 1, 1, tzinfo=timezone.utc)
"""What obstore gives where a server has named no date."""
CHANGED_REMEDY = "another file was put in its place: begin anew with that one"


class Version(NamedTuple):
    """What distinguishes a file from what is put in its place.

    Attributes:
        size: In bytes.
        e_tag: As the server gives it, if it does.
        modified: When it was written last, if the server says so.
    """

    size: int
    e_tag: str | None
    modified: datetime | None

    @property
    def is_known(self) -> bool:
        return bool(self.e_tag or self.modified)

    def condition(self) -> GetOptions:
        """Return what a server is asked for, so that it gives nothing of another version."""
        if self.e_tag and not self.e_tag.startswith("W/"):  # by which nothing can match
            return {"if_match": self.e_tag}
        return {"if_unmodified_since": self.modified} if self.modified else {}

    def find_difference(self, other: Version) -> str:
        """Return in words what is different; nothing if it is the same version."""
        if self.size != other.size:
            return f"its size is {other.size} bytes now, and was {self.size}"
        if self.e_tag:
            return "" if self.e_tag == other.e_tag else "its ETag is another one"
        return "" if self.modified == other.modified else "its date is another one"


class Transfer:
    """One file of a store, in the version that it had when it was opened.

    Attributes:
        version: That version; None before the first answer.
    """

    def __init__(self, network: Network, place: Place, name: str, retries: int) -> None:
        self.version: Version | None = None
        self._network = network
        self._place = place
        self._name = name
        self._retries = retries
        self._bytes = self._requests = self._repeated = 0
        self._counting = Lock()
        self._pending: set[Future[memoryview]] = set()

    @property
    def fetched(self) -> Fetched:
        return Fetched(self._bytes, self._requests, self._repeated)

    def start(self, start: int, end: int) -> Future[memoryview]:
        """Begin to fetch a range, the first of which may reach past the end of the file.

        The result raises `RemoteError` or `SourceChangedError` if the range cannot be had.
        """
        future: Future[memoryview] = Future()
        self._pending.add(future)
        future.add_done_callback(self._pending.discard)
        self._network.submit(lambda: self._run(future, start, end))
        return future

    def cancel(self) -> None:
        """Give up everything that is under way; what a server answers then is thrown away."""
        for future in tuple(self._pending):
            future.cancel()

    def _run(self, future: Future[memoryview], start: int, end: int) -> None:
        """Fetch a range for those who wait for it."""
        with suppress(InvalidStateError):  # nobody waits any more
            try:
                future.set_result(self._fetch(future, start, end))
            except BaseException as error:  # noqa: BLE001 - raised again by the one that waits
                future.set_exception(error)

    def _fetch(self, future: Future[memoryview], start: int, end: int) -> memoryview:
        pause, tries = FIRST_PAUSE, 0
        while not future.cancelled():
            with self._counting:
                self._requests += 1
            tries += 1
            try:
                return self._ask(start, end)
            except (BaseError, OSError, ValueError) as error:
                failure = judge(error)
            if not failure.is_transient or tries > self._retries:
                raise self._error(failure, tries)
            with self._counting:
                self._repeated += 1
            over = time.monotonic() + random.uniform(pause / 2, pause)  # noqa: S311 - no secret
            while not future.cancelled() and (rest := over - time.monotonic()) > 0:
                time.sleep(min(rest, FIRST_PAUSE))
            pause = min(2 * pause, LONGEST_PAUSE)
        return memoryview(b"")

    def _ask(self, start: int, end: int) -> memoryview:
        """Make one request."""
        condition = self.version.condition() if self.version else {}
        result = obstore.get(*self._place, options={"range": (start, end), **condition})
        version = self._check(result)
        end = min(end, version.size)
        if result.range != (start, end):
            raise self._error(Failure("the server gave another range than it was asked for"))
        data = self._read_body(result, end - start)
        with self._counting:
            self._bytes += len(data)
        self.version = version
        return data

    def _read_body(self, result: GetResult, length: int) -> memoryview:
        """Return the bytes of an answer, of which a server may give fewer or without end."""
        data, count = memoryview(bytearray(length)), 0
        for piece in result.stream(min_chunk_size=PIECE_SIZE):
            if count + len(piece) <= length:
                data[count : count + len(piece)] = piece
            count += len(piece)
            if count > length:
                break
        if count != length:
            problem = f"the server gave {count} bytes where {length} were asked for"
            raise self._error(Failure(problem))
        return data

    def _check(self, result: GetResult) -> Version:
        """Return the version that an answer is of, if it is the right one."""
        if (encoding := result.attributes.get("Content-Encoding", "identity")) != "identity":
            words = "compressed" if encoding in ("gzip", "br", "zstd", "deflate") else "encoded"
            raise self._error(Failure(f"the server gives it {words}, so that no range is certain"))
        meta = result.meta
        modified = meta["last_modified"]
        version = Version(meta["size"], meta["e_tag"], modified if modified != NO_DATE else None)
        if self.version and (difference := self.version.find_difference(version)):
            raise self._changed(difference)
        return self.version or version

    def _error(self, failure: Failure, tries: int = 1) -> Vhdx2rawError:
        if failure.status == CHANGED:
            return self._changed(failure.problem)
        problem = failure.problem
        if failure.status:
            problem += f" (HTTP {failure.status})" if "HTTP" not in problem else ""
        if tries > 1:
            problem += f"; tried {tries} times"
        return RemoteError(problem, path=self._name, remedy=failure.remedy, status=failure.status)

    def _changed(self, problem: str) -> SourceChangedError:
        words = f"was changed while it was read: {problem}"
        finding = Finding(Rule.FILE_CHANGED, "file", words, spec="")
        return SourceChangedError(finding, path=self._name, remedy=CHANGED_REMEDY)
