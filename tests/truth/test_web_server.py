"""The web server of the tests answers as nginx does, where nothing goes wrong."""

from collections.abc import Iterator
from contextlib import ExitStack
from http.client import HTTPConnection, HTTPMessage
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.support.servers.nginx import nginx
from tests.support.servers.web import Upstream, WebServer

SIZE = 100_000
LONG_AGO, IN_FUTURE = "Mon, 01 Jan 2001 00:00:00 GMT", "Thu, 01 Jan 2099 00:00:00 GMT"
REQUESTS: list[tuple[str, dict[str, str]]] = [
    ("/disk.vhdx", {}),
    ("/disk.vhdx?sig=x", {}),
    ("/%64isk.vhdx", {}),
    ("/missing.vhdx", {}),
    ("/disk.vhdx", {"Range": "bytes=0-0"}),
    ("/disk.vhdx", {"Range": "bytes=100-199"}),
    ("/disk.vhdx", {"Range": "bytes=99990-200000"}),
    ("/disk.vhdx", {"Range": "bytes=99999-"}),
    ("/disk.vhdx", {"Range": "bytes=100000-100001"}),
    ("/disk.vhdx", {"Range": "bytes=200000-"}),
    ("/disk.vhdx", {"If-Match": "{etag}"}),
    ("/disk.vhdx", {"If-Match": '"x", {etag}', "Range": "bytes=5-9"}),
    ("/disk.vhdx", {"If-Match": '"x"'}),
    ("/disk.vhdx", {"If-Match": "W/{etag}"}),
    ("/disk.vhdx", {"If-Match": '"x"', "Range": "bytes=5-9"}),
    ("/disk.vhdx", {"If-Unmodified-Since": LONG_AGO}),
    ("/disk.vhdx", {"If-Unmodified-Since": IN_FUTURE, "Range": "bytes=5-9"}),
]
COMPARED = ("content-length", "content-range", "last-modified")


@pytest.fixture
def urls(tmp_path: Path) -> Iterator[list[str]]:
    """Give the addresses of nginx, of our server and of ours as a proxy, all of one folder."""
    folder = tmp_path / "exports"
    folder.mkdir()
    (folder / "disk.vhdx").write_bytes(bytes(index * 7 % 251 for index in range(SIZE)))
    with ExitStack() as stack:
        peer = stack.enter_context(nginx(folder, tmp_path / "nginx"))
        own = stack.enter_context(WebServer(folder))
        proxy = stack.enter_context(WebServer(Upstream(peer.url)))
        yield [peer.url, own.url, proxy.url]


def ask(
    url: str, method: str, path: str, headers: dict[str, str]
) -> tuple[int, HTTPMessage, bytes]:
    connection = HTTPConnection(urlsplit(url).netloc, timeout=10)
    try:
        connection.request(method, path, headers=headers)
        answer = connection.getresponse()
        return answer.status, answer.headers, answer.read()
    finally:
        connection.close()


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_answers_are_those_of_nginx(urls: list[str], method: str) -> None:
    for path, headers in REQUESTS:
        answers = []
        for url in urls:
            etag = ask(url, "HEAD", "/disk.vhdx", {})[1]["etag"]
            filled = {name: value.replace("{etag}", etag) for name, value in headers.items()}
            status, told, body = ask(url, method, path, filled)
            is_file = status in (200, 206)
            facts = [told.get(name) for name in COMPARED] if is_file else [told["content-range"]]
            answers.append((status, facts, body if is_file else b""))
        assert answers[1:] == [answers[0]] * 2, f"{path} {headers}"
