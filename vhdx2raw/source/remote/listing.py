"""What lies below a folder of an object store."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace

import obstore
from obstore.exceptions import BaseError

from vhdx2raw.errors import RemoteError, UnsupportedImageError
from vhdx2raw.findings import Finding
from vhdx2raw.rules import Rule
from vhdx2raw.source.remote.failures import judge
from vhdx2raw.source.remote.options import RemoteOptions
from vhdx2raw.source.remote.stores import Place, open_store
from vhdx2raw.source.remote.url import HTTP_SCHEMES, parse_url

PAUSE = 0.5
"""Seconds before a list is asked for once more."""


def iter_names(folder: str, options: RemoteOptions) -> Iterator[str]:
    """Yield the URLs of all that lies below one, in order.

    Raises:
        UnsupportedImageError: It is that of a web server, which has no list.
        RemoteError: It cannot be listed.
    """
    url = parse_url(folder, is_folder=True)
    if url.scheme in HTTP_SCHEMES:
        finding = Finding(Rule.SIGNATURE, "folder", "of a web server cannot be listed", spec="")
        raise UnsupportedImageError(finding, path=url.name, remedy="name the files themselves")
    place = open_store(url, options, is_guarded=False)
    tries = 0
    while True:
        tries += 1
        try:
            paths = _list(place)
            break
        except (BaseError, OSError, ValueError) as error:
            failure = judge(error)
        if not failure.is_transient or tries > options.retries:
            raise RemoteError(
                f"cannot be listed: {failure.problem}",
                path=url.name,
                remedy=failure.remedy,
                status=failure.status,
            )
        time.sleep(PAUSE)
    for path in paths:
        yield replace(url, path=path).name


def _list(place: Place) -> list[str]:
    return sorted(
        str(found["path"]) for some in obstore.list(place.store, place.path) for found in some
    )
