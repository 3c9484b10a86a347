"""Certificates of a private authority for this machine, made by openssl."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tests.support.peers import run_peer
from tests.support.servers.web import HOST

CURVE = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2")
NAMES = f"IP:{HOST},DNS:localhost"


@dataclass(frozen=True)
class Certificate:
    """The files of a server's certificate.

    Attributes:
        authority: The certificate of the authority, which a client has to be told of.
        certificate: That of the server, signed by it.
        key: The server's key.
    """

    authority: Path
    certificate: Path
    key: Path


def make_certificate(folder: Path, names: str = NAMES) -> Certificate:
    """Make an authority, and a certificate of its for this machine or for other names."""
    folder.mkdir(exist_ok=True)
    made = Certificate(folder / "ca.pem", folder / "server.pem", folder / "server.key")
    authority_key = folder / "ca.key"
    request = ["openssl", "req", "-x509", *CURVE]
    run_peer(
        *request, "-subj", "/CN=Private authority", "-keyout", authority_key, "-out", made.authority
    )
    run_peer(
        *(*request, "-subj", "/CN=localhost", "-addext", f"subjectAltName={names}"),
        *("-addext", "basicConstraints=critical,CA:FALSE"),
        *("-CA", made.authority, "-CAkey", authority_key),
        *("-keyout", made.key, "-out", made.certificate),
    )
    return made
