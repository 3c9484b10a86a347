"""What a new file takes over from the one that it replaces: never more rights than that one gave.

A file may have a list of rights for single users and groups (an ACL). Then the bits for the group
in its mode are no rights, but the most that anyone in the list gets, and a new file has a list as
soon as its folder asks for one. So a mode means the same only where neither file has a list.
"""

from __future__ import annotations

import os
import struct
import sys
from contextlib import suppress

ACL = "system.posix_acl_access"
"""The extended attribute of Linux that holds the list."""
ACL_HEADER_SIZE = 4
ACL_ENTRY = struct.Struct("<HHI")
"""Whom it is about, what rights they have, and their number."""
OWNER = 0x01
PRIVATE_MODE = 0o600
"""That of a new file until it has taken over the rights."""


def take_over(descriptor: int, replaced: os.stat_result, path: str | os.PathLike[str]) -> None:
    """Give a new, private file the owner, the group and the rights of the one at `path`.

    Owner, group and list are taken where they can be. Else all but the owner may do what everyone
    might do: who had fewer rights than others would get those of the others.

    Raises:
        OSError: The host refuses the mode, and the file is open to more people than it may be.
    """
    if sys.platform == "win32":
        return
    with suppress(OSError):  # only the superuser can give a file away
        os.fchown(descriptor, replaced.st_uid, replaced.st_gid)
    acl = _acl_of(path)
    mode = replaced.st_mode & 0o777
    is_same_group = os.fstat(descriptor).st_gid == replaced.st_gid
    if acl and is_same_group and _set_acl(descriptor, acl):
        return
    if acl or not is_same_group:
        mode = mode & 0o700 | 0o011 * (_rights_of_everyone(acl) if acl else mode >> 3 & mode & 0o7)
    if not _drop_acl(descriptor):
        mode &= ~0o070  # they would be for all that the folder has put on the list
    _set_mode(descriptor, mode)


def _set_mode(descriptor: int, mode: int) -> None:
    """Change the mode where it is another one; a host that refuses may keep the file more private.

    Raises:
        OSError: The host refuses, and the file is more open than that.
    """
    if os.fstat(descriptor).st_mode & 0o777 == mode:
        return
    try:
        os.fchmod(descriptor, mode)
    except OSError:
        if os.fstat(descriptor).st_mode & 0o777 & ~mode:
            raise


def _rights_of_everyone(acl: bytes) -> int:
    """Return what all users and groups on a list may do, and all others."""
    rights = 0o7
    for whom, allowed, _ in ACL_ENTRY.iter_unpack(acl[ACL_HEADER_SIZE:]):
        if whom != OWNER:
            rights &= int(allowed)
    return rights


def _acl_of(file: int | str | os.PathLike[str]) -> bytes:
    """Return the list of a file; nothing if it has none, or the host knows no such thing."""
    if hasattr(os, "getxattr"):
        with suppress(OSError):
            return os.getxattr(file, ACL)
    return b""


def _set_acl(descriptor: int, acl: bytes) -> bool:
    """Give a file a list, and the mode that goes with it; return whether that could be done."""
    with suppress(OSError):
        os.setxattr(descriptor, ACL, acl)
        return True
    return False


def _drop_acl(descriptor: int) -> bool:
    """Take away the list that a folder gave to a file; return whether it has none."""
    if _acl_of(descriptor):
        with suppress(OSError):
            os.removexattr(descriptor, ACL)
    return not _acl_of(descriptor)
