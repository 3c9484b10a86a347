"""Object stores on this machine: moto for S3, Azurite for Azure Blob, and Google's in its XML API.

What a client has to know of an emulator (where it is, with which keys) are the same environment
variables as for the real ones.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path
from urllib.parse import quote, urlencode
from urllib.request import Request, urlopen

from tests.support.paths import ROOT
from tests.support.peers import needs_module, needs_program
from tests.support.servers.programs import running
from tests.support.servers.web import HOST

NAME = "exports"
"""The bucket or container of every emulator."""
S3_KEYS = {"AWS_ACCESS_KEY_ID": "AKIDFORTESTS", "AWS_SECRET_ACCESS_KEY": "aws-secret-for-tests"}
AZURE_ACCOUNT = "devstoreaccount1"
AZURE_KEY = (
    "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
)
"""The account of Azurite, which everybody knows."""
AZURE_VERSION = "2021-12-02"
AZURITE_FOLDER = ROOT / "build" / "azurite" / "node_modules" / ".bin"
"""Where `make azurite` installs it."""


@dataclass(frozen=True)
class Bucket:
    """A bucket or container of a server that runs.

    Attributes:
        url: What the objects' names are appended to, with a slash at its end.
        endpoint: The address of the server itself.
        environment: What a client has to find in its environment.
        secrets: What must never be shown to anybody.
        prefix: The address of the objects for a plain PUT.
        query: What such a PUT is signed with.
    """

    url: str
    endpoint: str
    environment: Mapping[str, str]
    secrets: tuple[str, ...]
    prefix: str
    query: str = ""

    def put(self, name: str, data: bytes | Path) -> str:
        """Store an object, which everybody may read; give its URL."""
        data = data.read_bytes() if isinstance(data, Path) else data
        headers = {"x-amz-acl": "public-read", "x-ms-blob-type": "BlockBlob"}
        _put(f"{self.prefix}/{quote(name)}{self.query}", data, headers)
        return f"{self.url}{name}"


def _put(url: str, data: bytes = b"", headers: Mapping[str, str] | None = None) -> None:
    headers = {"Content-Type": "application/octet-stream", **(headers or {})}
    urlopen(Request(url, data, headers, method="PUT")).close()


@contextmanager
def s3(folder: Path) -> Iterator[Bucket]:
    """Run moto's server with an empty bucket; everything is kept in memory."""
    with _moto(folder) as endpoint:
        variables = {
            **S3_KEYS,
            "AWS_ENDPOINT_URL": endpoint,
            "AWS_REGION": "us-east-1",
            "AWS_ALLOW_HTTP": "true",
        }
        secrets = tuple(S3_KEYS.values())
        yield Bucket(f"s3://{NAME}/", endpoint, variables, secrets, f"{endpoint}/{NAME}")


@contextmanager
def google(folder: Path) -> Iterator[Bucket]:
    """Run a server that answers as Google's XML API does, which is that of S3.

    The emulators that packages have only know the JSON API, which obstore does not use to read.
    """
    with _moto(folder) as endpoint:
        variables = {"STORAGE_EMULATOR_HOST": endpoint}
        yield Bucket(f"gs://{NAME}/", endpoint, variables, (), f"{endpoint}/{NAME}")


@contextmanager
def _moto(folder: Path) -> Iterator[str]:
    """Run moto's server with an empty bucket; give its address."""
    needs_module("moto")
    folder.mkdir(exist_ok=True)
    command = [sys.executable, "-W", "ignore", "-m", "moto.server", "-H", HOST, "-p"]
    with running(lambda port: [*command, str(port)], folder) as port:
        endpoint = f"http://{HOST}:{port}"
        _put(f"{endpoint}/{NAME}")
        yield endpoint


@contextmanager
def azure(folder: Path) -> Iterator[Bucket]:
    """Run Azurite with an empty container; everything is kept in memory."""
    path = f"{AZURITE_FOLDER}{os.pathsep}{os.environ.get('PATH', '')}"
    program = needs_program("azurite-blob", path=path)
    folder.mkdir(exist_ok=True)
    options = ["--inMemoryPersistence", "--disableTelemetry", "--blobHost", HOST, "--blobPort"]
    with running(lambda port: [program, *options, str(port)], folder) as port:
        endpoint = f"http://{HOST}:{port}/{AZURE_ACCOUNT}"
        query = f"?{_account_signature()}"
        _put(f"{endpoint}/{NAME}{query}&restype=container")
        variables = {
            "AZURE_STORAGE_ACCOUNT_NAME": AZURE_ACCOUNT,
            "AZURE_STORAGE_ACCOUNT_KEY": AZURE_KEY,
            "AZURE_STORAGE_ENDPOINT": endpoint,
            "AZURE_ALLOW_HTTP": "true",
        }
        prefix = f"{endpoint}/{NAME}"
        yield Bucket(f"az://{NAME}/", endpoint, variables, (AZURE_KEY,), prefix, query)


def _account_signature() -> str:
    """Sign for an hour what may be done with the whole account."""
    end = (datetime.now(timezone.utc) + timedelta(hours=1)).strftime("%Y-%m-%dT%H:%M:%SZ")
    fields = {"sp": "rwlc", "ss": "b", "srt": "sco", "st": "", "se": end, "sip": "", "spr": ""}
    text = "\n".join([AZURE_ACCOUNT, *fields.values(), AZURE_VERSION, "", ""])
    key = base64.b64decode(AZURE_KEY)
    signature = base64.b64encode(hmac.digest(key, text.encode(), hashlib.sha256)).decode()
    named = {name: value for name, value in fields.items() if value}
    return urlencode({"sv": AZURE_VERSION, **named, "sig": signature})
