"""The bytes of a URL: what is asked for, in which requests, and what is kept of it."""

import io
import os
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path

import pytest

from tests.support.servers import faults
from tests.support.servers.web import WebServer
from vhdx2raw.errors import RemoteError, SourceChangedError, TruncatedImageError
from vhdx2raw.source.base import Fetched, Status
from vhdx2raw.source.remote import transfer
from vhdx2raw.source.remote.options import RemoteOptions
from vhdx2raw.source.remote.source import FIRST_SIZE, REQUEST_SIZE, WINDOW_SIZE, RemoteSource
from vhdx2raw.source.remote.url import parse_url
from vhdx2raw.units import KIB, MIB

SIZE = 40 * MIB + 12345
CONTENT = b"".join(index.to_bytes(8, "big") * 512 for index in range(-(-SIZE // 4096)))[:SIZE]
MANY = RemoteOptions(retries=2, timeout=5)


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[WebServer]:
    monkeypatch.setattr(transfer, "FIRST_PAUSE", 0.01)
    (tmp_path / "file").write_bytes(CONTENT)
    with WebServer(tmp_path) as running:
        yield running


def opened(server: WebServer, options: RemoteOptions = MANY) -> RemoteSource:
    return RemoteSource(parse_url(f"{server.url}/file"), options)


def asked(server: WebServer) -> list[tuple[int, int]]:
    """Return which ranges were asked for after the opening, in order of the file."""
    ranges = [request.range for request in server.requests[1:]]
    return sorted((found[0], found[1] or 0) for found in ranges if found)


@pytest.mark.slow
def test_any_range_is_exact(server: WebServer) -> None:
    with opened(server) as source:
        assert source.size == SIZE
        for place, length in [(0, 1), (0, MIB), (12345, 5 * MIB), (SIZE - 7, 7), (0, SIZE), (5, 0)]:
            assert source.pread(place, length) == CONTENT[place : place + length]
        with pytest.raises(TruncatedImageError, match="ends too early: 2 bytes are needed here"):
            source.pread(SIZE - 1, 2)


def test_every_request_names_the_version(server: WebServer) -> None:
    with opened(server) as source:
        source.pread(20 * MIB, MIB)
    first, *others = server.requests
    assert first.range == (0, FIRST_SIZE)
    assert "if-match" not in first.headers
    assert others
    assert all(request.headers["if-match"].startswith('"') for request in others)


def test_reads_close_to_each_other_are_one_request(server: WebServer) -> None:
    with opened(server) as source:
        source.pread(64 * KIB, 4 * KIB)  # what every reader begins with is there
        assert asked(server) == []
        source.pread(10 * MIB + 100, 512)
        source.pread(10 * MIB + 200 * KIB, 512)
        assert asked(server) == [(10 * MIB, 10 * MIB + WINDOW_SIZE)]


def test_reads_that_follow_one_another_ask_for_more_each_time(server: WebServer) -> None:
    with opened(server) as source:
        for place in range(10 * MIB, 20 * MIB, 64 * KIB):
            source.pread(place, 64 * KIB)
    sizes = [end - start for start, end in asked(server)]
    assert sizes[:4] == [WINDOW_SIZE, 2 * WINDOW_SIZE, 4 * WINDOW_SIZE, 8 * WINDOW_SIZE]
    assert max(sizes) == REQUEST_SIZE


def test_what_is_read_soon_is_joined_to_large_requests(server: WebServer) -> None:
    with opened(server) as source:
        for place in range(8 * MIB, 18 * MIB, MIB):
            source.prefetch(place, MIB)
        for place in range(8 * MIB, 18 * MIB, MIB):
            assert source.pread(place, MIB) == CONTENT[place : place + MIB]
    edges = [8 * MIB, 12 * MIB, 16 * MIB, 18 * MIB]
    assert asked(server) == list(pairwise(edges))


def test_small_gaps_are_fetched_and_large_ones_are_not(server: WebServer) -> None:
    places = [8 * MIB, 8 * MIB + 128 * KIB, 9 * MIB]
    with opened(server) as source:
        for place in places:
            source.prefetch(place, 64 * KIB)
        for place in places:
            assert source.pread(place, 64 * KIB) == CONTENT[place : place + 64 * KIB]
    expected = [(8 * MIB, 8 * MIB + 192 * KIB), (9 * MIB, 9 * MIB + 64 * KIB)]
    assert asked(server) == expected


@pytest.mark.slow
def test_no_byte_is_fetched_twice_by_many_threads(server: WebServer) -> None:
    server.latency = 0.01
    with opened(server) as source, ThreadPoolExecutor(6) as threads:
        pieces = range(4 * MIB, 36 * MIB, 256 * KIB)
        for place in pieces:
            source.prefetch(place, 256 * KIB)
        for place, data in zip(
            pieces, threads.map(lambda at: source.pread(at, 256 * KIB), pieces), strict=True
        ):
            assert data == CONTENT[place : place + 256 * KIB]
        assert source.fetched == Fetched(32 * MIB + FIRST_SIZE, 9, 0)


def test_what_is_never_read_is_dropped_some_time(server: WebServer) -> None:
    options = RemoteOptions(connections=1)
    with opened(server, options) as source:
        for _ in range(3):
            for place in range(0, 36 * MIB, 5 * MIB):  # each its own request
                source.prefetch(place, REQUEST_SIZE)
                source.pread(place + REQUEST_SIZE - 1, 1)
        kept = [planned for planned in source._planned if planned.future is not None]
        assert sum(planned.end - planned.start for planned in kept) <= 2 * source.read_ahead


def test_tables_are_kept_and_zeros_remembered(tmp_path: Path) -> None:
    table = bytes(4 * MIB) + b"\1" * MIB + bytes(7 * MIB)
    (tmp_path / "file").write_bytes(bytes(MIB) + table)
    with WebServer(tmp_path) as server, opened(server) as source:
        source.prefetch(MIB, 12 * MIB, again=True)
        for _ in range(3):
            for place in range(MIB, 13 * MIB, MIB):
                parts = source.iter_without_holes(place, MIB)
                data = {at: source.pread(at, length) for at, length in parts}
                assert b"".join(data.values()) in (table[place - MIB : place], b"")
        assert len(asked(server)) == 3
        assert list(source.iter_without_holes(MIB, 12 * MIB)) == [(5 * MIB, 4 * MIB)]


def test_status_asks_once_more_after_reads_only(server: WebServer) -> None:
    with opened(server) as source:
        status = source.status()
        assert status == Status(SIZE, version=status.version)
        assert status.version
        assert len(server.requests) == 1
        source.pread(20 * MIB, 1)
        assert source.status() == status
        assert [request.range for request in server.requests][-1] == (0, FIRST_SIZE)


def test_date_stands_for_the_version_where_there_is_no_etag(server: WebServer) -> None:
    server.fault = faults.always(faults.without("etag"))
    with opened(server) as source:
        source.pread(20 * MIB, 1)
        status = source.status()
        assert status.version is None
        assert status.modified_ns
        assert source.unwatched == ""
    assert "if-unmodified-since" in server.requests[-1].headers


def test_server_without_etag_and_date_is_not_watched(server: WebServer) -> None:
    server.fault = faults.always(faults.without("etag", "last_modified"))
    with opened(server) as source:
        assert "neither an ETag nor a date" in source.unwatched
        assert source.status() == Status(SIZE)


CHANGES = {
    "its ETag is another one": faults.with_headers(etag='"other"'),
    "its size is": faults.wrong_size(512),
    "is another version now": faults.status(412),
}


@pytest.mark.slow
@pytest.mark.parametrize("problem", CHANGES)
def test_another_version_is_refused(server: WebServer, problem: str) -> None:
    with opened(server) as source:
        server.fault = faults.always(CHANGES[problem])
        with pytest.raises(SourceChangedError, match=f"was changed while it was read: {problem}"):
            source.pread(20 * MIB, 1)


def test_another_date_is_refused(server: WebServer, tmp_path: Path) -> None:
    server.fault = faults.always(faults.without("etag"))
    with opened(server) as source:
        os.utime(tmp_path / "file", (1, 1))
        with pytest.raises(SourceChangedError, match="its date is another one"):
            source.pread(20 * MIB, 1)


REFUSED = {
    r"the server gave another range than it was asked for": faults.shifted_range(512),
    r"the server gave \d+ bytes where \d+ were asked for": faults.short_body(),
    r"the server gave more|the server gave \d+ bytes where": faults.long_body(),
    r"the server gives whole files only": faults.ignore_range(),
    r"the server gives it compressed, so": faults.with_headers(content_encoding="gzip"),
    r"the server gives it encoded, so": faults.with_headers(content_encoding="aes"),
}


@pytest.mark.slow
@pytest.mark.parametrize("problem", REFUSED)
def test_answer_that_is_not_what_was_asked_for_is_refused(server: WebServer, problem: str) -> None:
    with opened(server) as source:
        server.fault = faults.always(REFUSED[problem])
        with pytest.raises(RemoteError, match=problem):
            source.pread(20 * MIB, 1)


def test_retries_are_counted_and_limited(server: WebServer) -> None:
    with opened(server) as source:
        server.fault = faults.at({2}, faults.status(503))
        assert source.pread(20 * MIB, 8) == CONTENT[20 * MIB : 20 * MIB + 8]
        assert source.fetched.requests == 3
        assert source.fetched.retries == 1
        server.fault = faults.always(faults.status(503))
        with pytest.raises(RemoteError, match=r"answered with HTTP 503; tried 3 times") as caught:
            source.pread(30 * MIB, 8)
        assert caught.value.status == 503


def test_missing_file_leaves_no_thread(server: WebServer) -> None:
    before = threading.active_count()
    with pytest.raises(RemoteError, match=r"does not exist \(HTTP 404\)") as caught:
        RemoteSource(parse_url(f"{server.url}/none"))
    assert caught.value.status == 404
    server.forget()
    assert threading.active_count() <= before + 1  # that of the server


def test_identity_is_that_of_url_and_version(server: WebServer) -> None:
    with opened(server) as one, opened(server) as same:
        assert one.identity == same.identity
        server.fault = faults.always(faults.with_headers(etag='"other"'))
        with opened(server) as other:
            assert other.identity != one.identity


def test_the_kernel_knows_nothing_of_it(server: WebServer) -> None:
    with opened(server) as source, pytest.raises(io.UnsupportedOperation, match="from a URL but"):
        _ = source.descriptor


@pytest.mark.slow
def test_a_read_can_be_given_up(server: WebServer) -> None:
    with opened(server, RemoteOptions(timeout=60)) as source, ThreadPoolExecutor(1) as threads:
        server.fault = faults.always(faults.late(0.5))
        source.prefetch(20 * MIB, MIB)
        reading = threads.submit(source.pread, 20 * MIB, MIB)
        while len(server.requests) < 2:
            time.sleep(0.01)
        source.cancel()
        with pytest.raises(RemoteError, match="was no longer waited for"):
            reading.result()
        server.fault = faults.at(set(), faults.late(0))
        assert source.pread(20 * MIB, MIB) == CONTENT[20 * MIB : 21 * MIB]


def test_too_few_threads_are_a_failure_of_the_host(
    server: WebServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    with pytest.raises(OSError, match="can't start new thread"):
        opened(server)
