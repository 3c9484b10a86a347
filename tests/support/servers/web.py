"""A web server in this process, which knows ranges and versions, and can be made to go wrong.

It serves a folder, or passes requests on to another server; `faults` has what can go wrong.
"""

from __future__ import annotations

import os
import re
import socket
import struct
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from email.utils import formatdate, parsedate_to_datetime
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

if TYPE_CHECKING:
    from typing_extensions import Self

HOST = "127.0.0.1"
OTHER_HOST = "127.0.0.2"
"""Another name of this machine."""
RANGE = re.compile(r"bytes=(\d+)-(\d*)")
RESET = struct.pack("ii", 1, 0)
"""The value of SO_LINGER with which closing a connection resets it."""
NOT_PASSED_ON = ("connection", "keep-alive", "transfer-encoding", "date", "server")


@dataclass(frozen=True)
class Request:
    """What a client asked for.

    Attributes:
        number: Its place among the requests of the server, from 1 on.
        method: GET, HEAD and so on.
        target: Path and query as they were sent.
        headers: By their names in lower case.
        client: The address and port of the client: one for each connection.
    """

    number: int
    method: str
    target: str
    headers: Mapping[str, str]
    client: tuple[str, int] = (HOST, 0)

    @property
    def path(self) -> str:
        """The path without escapes and its first slash."""
        return unquote(urlsplit(self.target).path).lstrip("/")

    @property
    def range(self) -> tuple[int, int | None] | None:
        """The range (start, end) that was asked for, if one was; None as the end is that of all."""
        match = RANGE.fullmatch(self.headers.get("range", ""))
        return (int(match[1]), int(match[2]) + 1 if match[2] else None) if match else None

    def without(self, *headers: str) -> Request:
        """Give the same request without some of its headers."""
        rest = {name: value for name, value in self.headers.items() if name not in headers}
        return replace(self, headers=rest)


@dataclass(frozen=True)
class FilePart:
    """A range of a file, as the body of a reply."""

    path: Path
    offset: int
    length: int

    def __len__(self) -> int:
        return self.length

    def read(self) -> bytes:
        """Give the bytes."""
        with self.path.open("rb") as file:
            return os.pread(file.fileno(), self.length, self.offset)


@dataclass(frozen=True)
class Reply:
    """What a server answers.

    Attributes:
        status: The code.
        headers: By their names; the length of the body is added unless it is there.
        body: Its bytes, or where they are.
        delay: Seconds before anything is sent.
        sent: How much of the body is sent before the connection is closed, unless all of it is.
        pause: Seconds before it is closed then.
        resets: Whether it is reset instead; with nothing to send, before the headers.
    """

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | FilePart = b""
    delay: float = 0
    sent: int | None = None
    pause: float = 0
    resets: bool = False

    def with_headers(self, **headers: str | None) -> Reply:
        """Give the same reply with other headers (`e_tag` is E-Tag), or without those of None."""
        changed = {name.replace("_", "-").title(): value for name, value in headers.items()}
        kept = {n: v for n, v in self.headers.items() if n.title() not in changed}
        return replace(self, headers=kept | {n: v for n, v in changed.items() if v is not None})

    @property
    def bytes(self) -> bytes:
        """The body in memory."""
        return self.body if isinstance(self.body, bytes) else self.body.read()


Answer = Callable[[Request], Reply]
Fault = Callable[[Request, Answer], Reply]
"""Replies to a request in another way than the right one, which it can ask for."""


# -- right answers ------------------------------------------------------------------------------


@dataclass(frozen=True)
class Folder:
    """Answers with the files of a folder; their ETags follow from their times and sizes."""

    path: Path

    def __call__(self, request: Request) -> Reply:
        """Answer a GET or HEAD."""
        path = self.path / request.path
        if ".." in Path(request.path).parts or not path.is_file():
            return Reply(404)
        if request.method not in ("GET", "HEAD"):
            return Reply(405, {"Allow": "GET, HEAD"})
        status = path.stat()
        headers = {
            "Accept-Ranges": "bytes",
            "Etag": f'"{status.st_mtime_ns:x}-{status.st_size:x}"',
            "Last-Modified": formatdate(status.st_mtime, usegmt=True),
        }
        if not _is_version_asked_for(request, headers):
            return Reply(412, headers)
        if request.range is None:
            return Reply(200, headers, FilePart(path, 0, status.st_size))
        start, end = request.range
        end = min(end or status.st_size, status.st_size)
        if start >= end:
            return Reply(416, headers | {"Content-Range": f"bytes */{status.st_size}"})
        headers["Content-Range"] = f"bytes {start}-{end - 1}/{status.st_size}"
        return Reply(206, headers, FilePart(path, start, end - start))


def _is_version_asked_for(request: Request, headers: Mapping[str, str]) -> bool:
    tags = request.headers.get("if-match")
    if tags is not None:
        return headers["Etag"] in re.split(r",\s*", tags)
    date = request.headers.get("if-unmodified-since")
    if date is None:
        return True
    modified = parsedate_to_datetime(headers["Last-Modified"])
    return modified <= parsedate_to_datetime(date)


@dataclass(frozen=True)
class Upstream:
    """Answers with what another server answers."""

    url: str

    def __call__(self, request: Request) -> Reply:
        """Pass a request without a body on, under the name of the host that it came with."""
        place = urlsplit(self.url)
        connection = HTTPConnection(place.hostname or HOST, place.port, timeout=30)
        headers = {n: v for n, v in request.headers.items() if n not in NOT_PASSED_ON}
        try:
            connection.request(request.method, request.target, headers=headers)
            answer = connection.getresponse()
            body = answer.read()
        finally:
            connection.close()
        kept = {n: v for n, v in answer.getheaders() if n.lower() not in NOT_PASSED_ON}
        return Reply(answer.status, kept, body)


# -- the server ---------------------------------------------------------------------------------


class WebServer:
    """A server for the time of a `with` statement.

    Attributes:
        url: Its address, without a slash at the end.
        requests: All that it was asked for, in order.
        sent: How many bytes of bodies it has sent.
        most_at_once: The most requests that waited for their replies at a moment.
        fault: Chooses what goes wrong with a request, if anything does; may be set at any time.
        latency: Seconds before each reply, and before the first one of a connection once more.
    """

    def __init__(self, answer: Answer | Path, *, host: str = HOST, latency: float = 0) -> None:
        """Prepare a server of the files of a folder, or of what `answer` gives."""
        self.requests: list[Request] = []
        self.sent = self.most_at_once = self._waiting = 0
        self.fault: Callable[[Request], Fault | None] = lambda _: None
        self.latency = latency
        self._answer = Folder(answer) if isinstance(answer, Path) else answer
        self._lock = threading.Lock()
        self.closing = threading.Event()
        self._server = _Listener(self, host)
        self.url = f"http://{host}:{self._server.server_port}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.closing.set()
        self._server.shutdown()
        self._server.server_close()

    def forget(self) -> None:
        """Count requests and bytes from now on."""
        with self._lock:
            self.requests.clear()
            self.sent = 0

    def reply_to(
        self, method: str, target: str, headers: Mapping[str, str], client: tuple[str, int]
    ) -> Reply:
        """Give the reply to a request, which may be a wrong one."""
        with self._lock:
            request = Request(len(self.requests) + 1, method, target, headers, client)
            self.requests.append(request)
            fault = self.fault(request)
        return fault(request, self._answer) if fault else self._answer(request)

    def count(self, length: int) -> None:
        """Add to the bytes that were sent."""
        with self._lock:
            self.sent += length

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Count a request among those that wait for their replies."""
        with self._lock:
            self._waiting += 1
            self.most_at_once = max(self.most_at_once, self._waiting)
        try:
            yield
        finally:
            with self._lock:
                self._waiting -= 1


class _Listener(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def __init__(self, owner: WebServer, host: str) -> None:
        self.owner = owner
        super().__init__((host, 0), _Connection)

    def handle_error(self, *_: object) -> None:
        """Say nothing: clients go away as they like."""


class _Connection(BaseHTTPRequestHandler):
    """One connection, on which requests come one after the other."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Listener

    def handle(self) -> None:
        self._wait(self.server.owner.latency)
        super().handle()

    def do_GET(self) -> None:
        owner = self.server.owner
        # A body, which only a PROPFIND has, is read and forgotten.
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        headers = {name.lower(): value for name, value in self.headers.items()}
        host, port = self.client_address[:2]
        with owner.waiting():
            reply = owner.reply_to(self.command, self.path, headers, (str(host), port))
            self._wait(owner.latency + reply.delay)
        if reply.resets and not reply.sent:
            self._reset()
            return
        self._send_headers(reply)
        if self.command != "HEAD":
            self._send_body(reply)

    do_HEAD = do_POST = do_PROPFIND = do_GET  # noqa: N815 - the names that http.server calls

    def _wait(self, seconds: float) -> None:
        if seconds:
            self.server.owner.closing.wait(seconds)

    def _send_headers(self, reply: Reply) -> None:
        self.send_response(reply.status)
        length = {"Content-Length": str(len(reply.body))}
        for name, value in (length | dict(reply.headers)).items():
            self.send_header(name, value)
        self.end_headers()

    def _send_body(self, reply: Reply) -> None:
        length = len(reply.body) if reply.sent is None else min(reply.sent, len(reply.body))
        # Before the client can have all of it, and look.
        self.server.owner.count(length)
        if isinstance(reply.body, FilePart):
            with reply.body.path.open("rb") as file:
                self.connection.sendfile(file, reply.body.offset, length) if length else None
        else:
            self.connection.sendall(reply.body[:length])
        if reply.sent is not None:
            self._wait(reply.pause)
            self.close_connection = True
            if reply.resets:
                self._reset()

    def _reset(self) -> None:
        self.close_connection = True
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        with suppress(OSError):
            os.close(self.connection.detach())

    def log_message(self, *_: object) -> None:
        """Say nothing."""
