"""Under which URLs the parent of a differencing disk may lie.

A server can be asked for anything, and what it answers says whether that exists. So a name found
in an image leads only below the folder of its child, or a folder that the user named: on the same
host, with the same scheme.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from vhdx2raw.disk.parent_paths import OUTSIDE, Candidate, iter_places
from vhdx2raw.source.remote.url import RemoteUrl, parse_url
from vhdx2raw.vhdx.locator import ParentLocator


def iter_remote(
    locator: ParentLocator, child: RemoteUrl | None, folders: Sequence[str]
) -> Iterator[Candidate]:
    """Yield where to look for the parent, best first; nothing is asked for yet.

    Args:
        locator: What the child knows.
        child: Where the child lies, if under a URL.
        folders: URLs of folders in which the user allows parents to lie.

    Raises:
        UnsupportedImageError: One of the folders is no URL of one.
    """
    named = [parse_url(folder, is_folder=True) for folder in folders]
    tried: set[str] = set()
    for folder, parts in iter_places(locator, [child.folder] if child else [], named):
        url = folder.below(parts)
        place = url.name if url else f"{folder.name.rstrip('/')}/{'/'.join(parts)}"
        if parts and place not in tried:
            tried.add(place)
            yield Candidate(place, None, "" if url else OUTSIDE, url=url)
