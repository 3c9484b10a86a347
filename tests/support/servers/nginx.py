"""nginx, which serves a folder: with ranges and ETags, encrypted, to one user only."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.support.peers import needs_program, run_peer
from tests.support.servers.certificates import Certificate
from tests.support.servers.programs import running
from tests.support.servers.web import HOST

SEARCH_PATH = f"{os.environ.get('PATH', '')}:/usr/sbin"
USER, PASSWORD = "exporter", "s3cret-pass"
CONFIGURATION = """\
daemon off;
worker_processes 1;
pid {work}/nginx.pid;
error_log stderr;
{user}
events {{ worker_connections 256; }}
http {{
    log_format requests '$request_method $request_uri $status $body_bytes_sent $http_range';
    access_log {work}/access.log requests;
    client_body_temp_path {work}/body;
    proxy_temp_path {work}/proxy;
    fastcgi_temp_path {work}/fastcgi;
    uwsgi_temp_path {work}/uwsgi;
    scgi_temp_path {work}/scgi;
    sendfile on;
    server {{
        listen {host}:{port}{ssl};
        root {folder};
        {more}
    }}
}}
"""
TLS = "ssl_certificate {0.certificate}; ssl_certificate_key {0.key};"
BASIC = 'auth_basic "exports"; auth_basic_user_file {};'


@dataclass(frozen=True)
class Nginx:
    """A server that runs.

    Attributes:
        url: Its address, without a slash at the end.
        log: A line for each request: method, path, status, bytes of the body, range.
    """

    url: str
    log: Path

    def requests(self) -> list[list[str]]:
        """Give the words of each line of the log."""
        return [line.split() for line in self.log.read_text().splitlines()]


@contextmanager
def nginx(
    folder: Path, work: Path, *, certificate: Certificate | None = None, with_user: bool = False
) -> Iterator[Nginx]:
    """Serve `folder`, with everything that nginx writes in `work`; to USER only on demand."""
    program = needs_program("nginx", path=SEARCH_PATH)
    work.mkdir(exist_ok=True)
    more = TLS.format(certificate) if certificate else ""
    if with_user:
        hashed = run_peer("openssl", "passwd", "-apr1", PASSWORD).strip()
        (work / "users").write_text(f"{USER}:{hashed}\n")
        more += BASIC.format(work / "users")

    def command(port: int) -> list[str | Path]:
        text = CONFIGURATION.format(
            work=work,
            # What the superuser starts gives up its rights, and then cannot read our folders.
            user="user root;" if os.geteuid() == 0 else "",
            host=HOST,
            port=port,
            ssl=" ssl" if certificate else "",
            folder=folder,
            more=more,
        )
        (work / "nginx.conf").write_text(text)
        return [program, "-p", work, "-c", work / "nginx.conf", "-e", "stderr"]

    with running(command, work) as port:
        scheme = "https" if certificate else "http"
        yield Nginx(f"{scheme}://{HOST}:{port}", work / "access.log")
