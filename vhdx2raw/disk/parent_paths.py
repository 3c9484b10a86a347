"""Where the parent of a differencing disk may lie.

A locator names its parent in the words of the Windows machine that made it, and a hostile one can
name any file. So a path found in an image leads only to regular files in a few folders: that of
the child, and those that the user named. An absolute Windows path leads nowhere by itself; only
its last part is looked for.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from vhdx2raw import host
from vhdx2raw.errors import ParentNotFoundError
from vhdx2raw.source.base import Source
from vhdx2raw.source.file import identity_of
from vhdx2raw.source.file_object import is_url
from vhdx2raw.vhdx.locator import ParentLocator

if TYPE_CHECKING:
    from vhdx2raw.source.remote.url import RemoteUrl

Folder = TypeVar("Folder")
_SEPARATORS = re.compile(r"[\\/]+")
_ABSOLUTE = re.compile(r"[\\/]|[A-Za-z]:")


OUTSIDE = "lies outside the child's folder and every folder that was named for parents"


class Candidate(NamedTuple):
    """A place where a parent may lie.

    Attributes:
        place: The path, in words.
        path: The regular file that is there, or None.
        problem: Why there is none.
        allowed: Resolved folders, in or below which the file must lie.
        url: Where the file lies if that is not on this host.
    """

    place: str
    path: Path | None
    problem: str
    allowed: tuple[Path, ...] = ()
    url: RemoteUrl | None = None

    @property
    def file(self) -> str | RemoteUrl | None:
        """What can be opened."""
        return self.url or (None if self.path is None else str(self.path))

    def check_opened(self, identity: tuple[int, int]) -> None:
        """Judge the file that was really opened: a link may have been changed meanwhile.

        Raises:
            ParentNotFoundError: It is not the file that lies in an allowed folder.
            OSError: The host could not look.
        """
        if self.url is not None:
            return
        assert self.path is not None, "only a file that is there can be opened"
        resolved = Path(os.path.realpath(self.path))
        status = resolved.stat()
        if not _is_inside(resolved, self.allowed) or (status.st_dev, status.st_ino) != identity:
            raise ParentNotFoundError(OUTSIDE)


def iter_candidates(
    locator: ParentLocator, child: Source, folders: Sequence[str]
) -> Iterator[Candidate]:
    """Yield where to look for the parent, best first (R102, R103).

    Args:
        locator: What the child knows.
        child: The file of the child.
        folders: Where the user allows parents to lie, besides the folder of the child.
    """
    remote = [folder for folder in folders if is_url(folder)]
    local = _iter_local(locator, child, [folder for folder in folders if folder not in remote])
    if child.url is None and not remote:
        return local
    from vhdx2raw.disk.parent_urls import iter_remote  # noqa: PLC0415 - takes a while to load

    both = iter_remote(locator, child.url, remote), local
    return chain.from_iterable(both if child.url else reversed(both))


def _iter_local(
    locator: ParentLocator, child: Source, folders: Sequence[str]
) -> Iterator[Candidate]:
    """Yield the files of the host."""
    own_folders = _own_folders(child)
    allowed = tuple(Path(os.path.realpath(folder)) for folder in (*own_folders, *folders))
    tried: set[Path] = set()
    for folder, names in iter_places(locator, own_folders, folders):
        parts = [host.file_name(part) for part in names]
        place = Path(folder, *parts)
        if not parts or place in tried:
            continue
        tried.add(place)
        try:
            yield Candidate(str(place), _find_file(Path(folder), parts, allowed), "", allowed)
        except OSError as error:
            yield Candidate(str(place), None, str(error.strerror), allowed)
        except ParentNotFoundError as error:
            yield Candidate(str(place), None, error.message, allowed)


def _is_inside(path: Path, folders: tuple[Path, ...]) -> bool:
    """Return whether a resolved path lies in or below one of some resolved folders."""
    return any(path.is_relative_to(folder) for folder in folders)


def _own_folders(child: Source) -> list[str]:
    """Return the folder in which the child is named, and the one in which it lies.

    There is none if the name is that of an object that is no file of the host.
    """
    path = Path(child.name)
    try:
        is_child = identity_of(path.stat()) == child.identity
    except (OSError, ValueError):  # no name of a file at all
        is_child = False
    if not is_child:
        return []
    named, real = path.parent, Path(os.path.realpath(path)).parent
    same = os.path.realpath(named) == str(real)
    return [str(named)] if same else [str(named), str(real)]


def iter_places(
    locator: ParentLocator, own_folders: Sequence[Folder], folders: Sequence[Folder]
) -> Iterator[tuple[Folder, list[str]]]:
    """Yield folders and the parts of a path to look for in them: the relative one, then names."""
    relative = locator.paths.get("relative_path", "")
    if relative and not _ABSOLUTE.match(relative):
        for folder in own_folders:
            yield folder, _split(relative)
    for path in locator.paths.values():
        name = _SEPARATORS.split(path)[-1]
        for folder in (*own_folders, *folders):
            yield folder, _split(name)


def _split(path: str) -> list[str]:
    return [part for part in _SEPARATORS.split(path) if part not in ("", os.curdir)]


def _find_file(folder: Path, parts: list[str], allowed: tuple[Path, ...]) -> Path:
    """Walk from `folder` along `parts` to a regular file in an allowed folder."""
    path = folder
    for part in parts:
        path = _find_name(path, part, allowed)
    if not _is_inside(Path(os.path.realpath(path)), allowed):
        raise ParentNotFoundError(OUTSIDE)
    # Looked at before it is opened: opening a device can have effects of its own.
    if not stat.S_ISREG(path.stat().st_mode):
        raise ParentNotFoundError("is not a regular file")
    return path


def _find_name(folder: Path, name: str, allowed: tuple[Path, ...]) -> Path:
    """Find a name in a folder: as it is written, else the only one that differs in case."""
    exact = folder / name
    if name == os.pardir or os.path.lexists(exact):
        return exact
    if not _is_inside(Path(os.path.realpath(folder)), allowed):
        raise ParentNotFoundError(OUTSIDE)
    wanted = _fold(name)
    similar = sorted(entry.name for entry in folder.iterdir() if _fold(entry.name) == wanted)
    if len(similar) > 1:
        raise ParentNotFoundError(f"could be any of {', '.join(similar)}")
    if not similar:
        raise ParentNotFoundError("does not exist")
    return folder / similar[0]


def _fold(name: str) -> str:
    """Return what is the same for names that differ only in case, whatever the locale."""
    return os.fsencode(name).decode("utf-8", "surrogateescape").casefold()
