"""What replaces a file is never open to more people than that file was, not for a moment."""

from __future__ import annotations

import errno
import os
import struct
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.support.files import names_in
from tests.support.peers import needs_superuser, skip_unless_ci
from vhdx2raw.output.sparse_file import SparseFileSink

ACCESS, DEFAULT = "system.posix_acl_access", "system.posix_acl_default"
NOBODY = 0xFFFFFFFF
OWNER, USER, OWNING_GROUP, GROUP, MASK, OTHER = 1, 2, 4, 8, 16, 32
ME, ALICE, BOB = os.geteuid(), 1001, 1002
MY_GROUP, STAFF, GUESTS = os.getegid(), 2001, 2002
Entry = tuple[int, int, int]
REAL_FCHMOD = os.fchmod
Patch = pytest.MonkeyPatch


def acl(*entries: Entry) -> bytes:
    return struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)


def with_list(group: int, mask: int, other: int, *named: Entry) -> bytes:
    """Give a list with these rights besides those of the owner."""
    users = [entry for entry in named if entry[0] == USER]
    groups = [entry for entry in named if entry[0] == GROUP]
    owning = [(OWNING_GROUP, group, NOBODY)]
    ends = [(MASK, mask, NOBODY), (OTHER, other, NOBODY)]
    return acl((OWNER, 6, NOBODY), *users, *owning, *groups, *ends)


LISTS = {
    "no list": b"",
    "a user may write": with_list(0, 6, 0, (USER, 6, ALICE)),
    "the group may read, a user write": with_list(4, 6, 0, (USER, 6, ALICE)),
    "all are masked": with_list(6, 0, 0, (USER, 6, ALICE), (GROUP, 6, GUESTS)),
    "a group may read": with_list(0, 4, 0, (GROUP, 4, GUESTS)),
    "a user may not what others may": with_list(4, 4, 4, (USER, 0, BOB)),
}
FOLDERS = {
    "no list": b"",
    "a user may write": with_list(4, 6, 0, (USER, 6, BOB)),
    "everybody may write": with_list(6, 6, 6, (GROUP, 6, GUESTS)),
}


class State(NamedTuple):
    """Who may do what with a file."""

    user: int
    group: int
    mode: int
    acl: bytes

    @classmethod
    def of(cls, file: int | Path) -> State:
        status = os.stat(file)  # noqa: PTH116 - also a descriptor
        try:
            entries = os.getxattr(file, ACCESS)
        except OSError:
            entries = b""
        return cls(status.st_uid, status.st_gid, status.st_mode & 0o777, entries)

    def rights(self, user: int, group: int) -> int:
        """Give the rights of somebody in one group, by the algorithm of acl(5)."""
        if user == self.user:
            return self.mode >> 6
        entries: list[Entry] = list(struct.iter_unpack("<HHI", self.acl[4:]))
        if not entries:
            return self.mode >> 3 & 7 if group == self.group else self.mode & 7
        named = {(whom, number): allowed for whom, allowed, number in entries}
        mask = named.get((MASK, NOBODY), 7)
        if (USER, user) in named:
            return named[USER, user] & mask
        groups = [named[OWNING_GROUP, NOBODY]] if group == self.group else []
        groups += [named[GROUP, group]] if (GROUP, group) in named else []
        if groups:
            return max(groups) & mask
        return named[OTHER, NOBODY]


PEOPLE = [(user, group) for user in (ALICE, BOB, 1003) for group in (MY_GROUP, STAFF, GUESTS, 2003)]


@pytest.fixture
def watched(monkeypatch: Patch) -> list[State]:
    """Give the states of what is created, after each call that may change them."""
    states: list[State] = []

    def watch(name: str) -> None:
        real = getattr(os, name)

        def call(*arguments: Any) -> Any:  # noqa: ANN401 - those of `os`
            result = real(*arguments)
            if name != "open":
                states.append(State.of(arguments[0]))
            elif arguments[1] & os.O_CREAT:
                states.append(State.of(result))
            return result

        monkeypatch.setattr(os, name, call)

    for name in ("open", "fchown", "fchmod", "setxattr", "removexattr"):
        watch(name)
    return states


def refuse(number: int) -> Callable[..., None]:
    def call(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    return call


@pytest.fixture
def target(tmp_path: Path) -> Path:
    path = tmp_path / "out.img"
    path.write_bytes(b"old")
    return path


def prepare(target: Path, mode: int, entries: bytes, default: bytes) -> State:
    """Give the file its group, mode and list, and its folder a list for new files."""
    os.chown(target, -1, STAFF)
    target.chmod(mode)
    try:
        if entries:
            os.setxattr(target, ACCESS, entries)
        if default:
            os.setxattr(target.parent, DEFAULT, default)
    except OSError as error:
        skip_unless_ci(f"this file system has no lists of rights: {error}")
    return State.of(target)


@pytest.mark.slow
@pytest.mark.parametrize("group_is_kept", [True, False])
@pytest.mark.parametrize("default", FOLDERS)
@pytest.mark.parametrize("entries", LISTS)
@pytest.mark.parametrize("mode", [0o600, 0o640, 0o660, 0o604, 0o666, 0o444])
def test_nobody_may_more_than_before_at_any_moment(
    target: Path,
    monkeypatch: Patch,
    watched: list[State],
    *,
    mode: int,
    entries: str,
    default: str,
    group_is_kept: bool,
) -> None:
    needs_superuser()
    old = prepare(target, mode, LISTS[entries], FOLDERS[default])
    watched.clear()
    if not group_is_kept:
        monkeypatch.setattr(os, "fchown", refuse(errno.EPERM))
    sink = SparseFileSink(target, 512, replace=True)
    sink.write(0, memoryview(bytes(512)))
    sink.commit()
    new = State.of(target)
    assert watched
    for state in (*watched, new):
        for user, group in PEOPLE:
            more = state.rights(user, group) & ~old.rights(user, group)
            assert not more, f"user {user} of group {group} in {state}"
    if group_is_kept:
        assert new == old


@pytest.mark.parametrize("lacks", ["setxattr", "removexattr", "both"])
def test_a_list_that_cannot_be_set_or_dropped_opens_nothing(
    target: Path, monkeypatch: Patch, lacks: str
) -> None:
    needs_superuser()
    old = prepare(target, 0o660, LISTS["a user may write"], FOLDERS["everybody may write"])
    for name in ("setxattr", "removexattr"):
        if lacks in (name, "both"):
            monkeypatch.setattr(os, name, refuse(errno.EOPNOTSUPP))
    SparseFileSink(target, 512, replace=True).commit()
    new = State.of(target)
    for user, group in PEOPLE:
        assert not new.rights(user, group) & ~old.rights(user, group)


# -- hosts that refuse ----------------------------------------------------------------------------

REFUSALS = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS)


def created_with(monkeypatch: Patch, mode: int) -> None:
    """Have every new file get a mode that the file system chooses, as FUSE, FAT and SMB may."""
    real = os.open

    def call(path: str, flags: int, *rest: int) -> int:
        descriptor = real(path, flags, *rest)
        if flags & os.O_CREAT:
            REAL_FCHMOD(descriptor, mode)
        return descriptor

    monkeypatch.setattr(os, "open", call)


@pytest.fixture(params=REFUSALS, ids=errno.errorcode.get)
def refused(request: pytest.FixtureRequest, monkeypatch: Patch) -> None:
    monkeypatch.setattr(os, "fchown", refuse(request.param))
    monkeypatch.setattr(os, "fchmod", refuse(request.param))


@pytest.mark.usefixtures("refused")
@pytest.mark.parametrize(
    ("chosen", "old"), [(0o777, 0o777), (0o600, 0o644), (0o600, 0o600), (0o644, 0o664)]
)
def test_a_host_without_modes_is_no_obstacle(
    target: Path, monkeypatch: Patch, chosen: int, old: int
) -> None:
    target.chmod(old)
    created_with(monkeypatch, chosen)
    SparseFileSink(target, 512, replace=True).commit()
    assert target.stat().st_mode & 0o777 == chosen
    assert target.read_bytes() == bytes(512)


@pytest.mark.usefixtures("refused")
@pytest.mark.parametrize(("chosen", "old"), [(0o644, 0o600), (0o777, 0o755), (0o660, 0o606)])
def test_a_host_that_refuses_a_mode_may_not_open_a_file_to_more(
    target: Path, monkeypatch: Patch, chosen: int, old: int
) -> None:
    target.chmod(old)
    created_with(monkeypatch, chosen)
    with pytest.raises(OSError, match=str(target)):
        SparseFileSink(target, 512, replace=True)
    assert names_in(target.parent) == ["out.img"]
    assert target.read_bytes() == b"old"


def test_a_host_without_lists_keeps_the_mode(target: Path, monkeypatch: Patch) -> None:
    target.chmod(0o640)
    for name in ("getxattr", "setxattr", "removexattr"):
        monkeypatch.delattr(os, name)
    SparseFileSink(target, 512, replace=True).commit()
    assert target.stat().st_mode & 0o777 == 0o640


def test_the_algorithm_of_this_test_is_that_of_the_kernel(tmp_path: Path) -> None:
    """The states above are judged by hand; hold that against the bits that the kernel shows."""
    path = tmp_path / "file"
    path.touch()
    states: Sequence[bytes] = [entries for entries in LISTS.values() if entries]
    for entries in states:
        try:
            os.setxattr(path, ACCESS, entries)
        except OSError as error:
            skip_unless_ci(f"this file system has no lists of rights: {error}")
        state = State.of(path)
        masks = [
            allowed for whom, allowed, _ in struct.iter_unpack("<HHI", entries[4:]) if whom == MASK
        ]
        assert [state.mode >> 3 & 7] == masks
        assert state.acl == entries
