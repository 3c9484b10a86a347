"""URLs: which file one names, what lies beside it, and what of it may be shown.

User info and the query of a signed URL are as good as a password, so they are in no name. A URL
that a user types is believed; what an image names is only looked for below the folder of its child.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from urllib.parse import quote, unquote

from vhdx2raw.errors import UnsupportedImageError
from vhdx2raw.findings import Finding
from vhdx2raw.rules import Rule

HTTP_SCHEMES = ("http", "https")
AZURE_SCHEMES = ("az", "abfs", "abfss")
SCHEMES = (*HTTP_SCHEMES, "s3", "gs", "az")
AZURE_HOST = re.compile(r"[a-z0-9]+\.(?:dfs|blob)\.core\.windows\.net", re.IGNORECASE)
DOWNLOAD = "download the file first; http, https, s3, gs, az and abfss can be read as they are"
NO_QUERY = "write a signed URL with https://, or give credentials in the environment"
_IN_PATHS = "/%:@!$&'()*+,;=~"
"""What stays in the path of a web server as the user typed it."""


@dataclass(frozen=True, slots=True)
class RemoteUrl:
    """Where a file lies.

    Attributes:
        scheme: ``http``, ``https``, ``s3``, ``gs`` or ``az``.
        host: Host and port, bucket, or container.
        path: From the root of the host on, percent-encoded for a web server and as it is for a
            store, without the slash at its beginning.
        account: Of an Azure URL that names it.
        user: User name and password, as they stand in the URL.
        query: What follows the question mark, such as a signature.
    """

    scheme: str
    host: str
    path: str
    account: str = ""
    user: str = field(default="", repr=False)
    query: str = field(default="", repr=False)

    @property
    def name(self) -> str:
        """The URL for messages and files, without what is secret."""
        if self.account:
            return f"abfss://{self.host}@{self.account}.dfs.core.windows.net/{self.path}"
        return f"{self.scheme}://{self.host}/{self.path}"

    @property
    def file_name(self) -> str:
        """The last part of the path."""
        last = posixpath.basename(self.path)
        return unquote(last) if self.scheme in HTTP_SCHEMES else last

    def below(self, parts: Sequence[str]) -> RemoteUrl | None:
        """Return the file that a relative path leads to, if this is a folder.

        None if the path leads out of the folder, or is none.
        """
        if not parts or any(part in ("", ".", "..") or "/" in part for part in parts):
            return None
        if self.scheme in HTTP_SCHEMES:
            parts = [quote(part, safe="") for part in parts]
        return replace(self, path="/".join([*filter(None, [self.path.rstrip("/")]), *parts]))

    @property
    def folder(self) -> RemoteUrl:
        """Where the file lies."""
        return replace(self, path=posixpath.dirname(self.path))


def clean_name(text: str) -> str:
    """Return the name of a URL for messages, also where it names no file."""
    try:
        return parse_url(text).name
    except UnsupportedImageError as error:
        return error.path or ""


def parse_url(text: str, *, is_folder: bool = False) -> RemoteUrl:
    """Read a URL of a file, or of a folder.

    Raises:
        UnsupportedImageError: It names no file, or cannot be read.
    """
    scheme, _, rest = text.partition("://")
    scheme = scheme.lower()
    if scheme not in (*SCHEMES[2:], *AZURE_SCHEMES):  # whose names are as they are
        rest = rest.partition("#")[0]
    rest, _, query = rest.partition("?")
    host, _, path = rest.partition("/")
    user, _, host = host.rpartition("@")
    if scheme in HTTP_SCHEMES:
        path, query = quote(path, safe=_IN_PATHS), quote(query, safe=f"?{_IN_PATHS}")
        url = RemoteUrl(scheme, host, path, user=user, query=query)
    elif scheme in AZURE_SCHEMES and AZURE_HOST.fullmatch(host):
        url = RemoteUrl("az", user, path, account=host.partition(".")[0])
        user = ""
    else:
        url = RemoteUrl("az" if scheme in AZURE_SCHEMES else scheme, host, path)
    problem, remedy = "", ""
    if url.scheme not in SCHEMES:
        problem, remedy = "is a URL, not a VHDX file", DOWNLOAD
    elif url.scheme not in HTTP_SCHEMES and (user or query):
        problem, remedy = "is a URL with a user or a query, as only https has", NO_QUERY
    elif not url.host or not (is_folder or (path and not path.endswith("/"))):
        problem = "is a URL that names no file"
    if problem:
        finding = Finding(Rule.SIGNATURE, "file", problem, spec="")
        raise UnsupportedImageError(finding, path=url.name, remedy=remedy)
    return url
