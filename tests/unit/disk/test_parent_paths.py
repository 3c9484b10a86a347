"""Where a parent is looked for, and where it may lie (R102, R103)."""

import os
import socket
from pathlib import Path

import pytest

from tests.support.builder import Block, ImageSpec
from tests.support.chains import RELATIVE, child_with, read_chain, small_disk
from tests.support.files import open_files, write_files
from tests.support.parents import OUTSIDE, parents_of, refusal_of
from tests.support.peers import needs_superuser
from vhdx2raw.disk import parent_search
from vhdx2raw.source.remote.options import RemoteOptions
from vhdx2raw.vhdx.image import open_image
from vhdx2raw.vhdx.log import LogPolicy

WINDOWS = "\\\\?\\"


def family(folder: Path, parent: str, child: str = "child.vhdx", **locator: str) -> Path:
    """Write a parent and a child that has these keys; give the child's path."""
    return write_files(folder, {child: child_with(locator), parent: small_disk()})


# -- names (R103) ----------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    ("relative", "parent"),
    [
        (".\\base.vhdx", "base.vhdx"),
        ("base.vhdx", "base.vhdx"),
        ("./base.vhdx", "base.vhdx"),
        (".\\\\.\\base.vhdx", "base.vhdx"),
        ("sub\\deeper/base.vhdx", "sub/deeper/base.vhdx"),
        (".\\sub\\..\\base.vhdx", "base.vhdx"),
        (".\\SUB\\Base.VHDX", "sub/base.vhdx"),
        (".\\Größe \N{SNOWMAN}.vhdx", "Größe \N{SNOWMAN}.vhdx"),
        (".\\GRÖSSE.vhdx", "größe.vhdx"),
        (".\\\N{GRINNING FACE}.vhdx", "\N{GRINNING FACE}.vhdx"),
        (".\\base.vhdx ", "base.vhdx "),
        (".\\...vhdx", "...vhdx"),
    ],
)
def test_relative_path_is_followed(relative: str, parent: str, tmp_path: Path) -> None:
    """Item 85: either separator, with or without `.`, any letters, another case."""
    (tmp_path / "sub").mkdir()
    path = family(tmp_path, parent, relative_path=relative)
    (found,) = parents_of(path)
    assert Path(found).samefile(tmp_path / parent)


def test_relative_path_starts_at_the_child(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also if the child is named without a folder."""
    family(tmp_path / "a", "base.vhdx", relative_path=RELATIVE)
    other_parent().write(tmp_path / "base.vhdx")
    monkeypatch.chdir(tmp_path)
    assert parents_of(Path("a/child.vhdx")) == ["a/base.vhdx"]
    monkeypatch.chdir(tmp_path / "a")
    assert parents_of(Path("child.vhdx")) == ["base.vhdx"]


def test_exact_name_goes_before_one_in_another_case(tmp_path: Path) -> None:
    path = family(tmp_path, "base.vhdx", relative_path=RELATIVE)
    small_disk(blocks={0: Block(content=b"other")}).write(tmp_path / "BASE.vhdx")
    assert parents_of(path) == [str(tmp_path / "base.vhdx")]


def test_name_in_two_other_cases_is_ambiguous(tmp_path: Path) -> None:
    path = family(tmp_path, "BASE.vhdx", relative_path=RELATIVE)
    small_disk().write(tmp_path / "Base.vhdx")
    message = refusal_of(path)
    assert f"{tmp_path / 'base.vhdx'}: could be any of BASE.vhdx, Base.vhdx" in message


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("absolute_win32_path", "C:\\vm\\base.vhdx"),
        ("absolute_win32_path", WINDOWS + "d:\\vm\\base.vhdx"),
        ("absolute_win32_path", WINDOWS + "UNC\\server\\share\\base.vhdx"),
        ("absolute_win32_path", "\\\\server\\share\\base.vhdx"),
        ("absolute_win32_path", "C:/vm/base.vhdx"),
        ("absolute_win32_path", "base.vhdx"),
        ("volume_path", WINDOWS + "Volume{26a21bda-a627-11d7-9931-806e6f6e6963}\\vm\\BASE.VHDX"),
        ("relative_path", "C:\\vm\\base.vhdx"),
        ("relative_path", "\\vm\\base.vhdx"),
        ("relative_path", "..\\..\\gone\\base.vhdx"),
    ],
)
def test_base_name_is_searched_beside_the_child(key: str, value: str, tmp_path: Path) -> None:
    """Item 86: an absolute path is never followed by itself."""
    path = family(tmp_path, "base.vhdx", **{key: value})
    assert parents_of(path) == [str(tmp_path / "base.vhdx")]


@pytest.mark.parametrize("value", ["/{}", "\\{}", "C:\\{}", "{}"])
@pytest.mark.parametrize("key", ["absolute_win32_path", "volume_path", "relative_path"])
def test_absolute_path_to_the_parent_is_not_followed(key: str, value: str, tmp_path: Path) -> None:
    """R103: it is a path of another machine, or a hostile one."""
    outside = tmp_path / "outside" / "base.vhdx"
    outside.parent.mkdir()
    small_disk().write(outside)
    path = write_files(tmp_path / "in", {"c.vhdx": child_with({key: value.format(outside)})})
    message = refusal_of(path)
    assert f"{path.parent / 'base.vhdx'}: does not exist" in message


@pytest.mark.parametrize("value", ["C:\\vm\\base.vhdx", "\\vm\\base.vhdx", "/vm/base.vhdx"])
def test_absolute_path_is_not_relative(value: str, tmp_path: Path) -> None:
    """R103: not even where it stands under the key relative_path, and would lead to a file."""
    path = write_files(
        tmp_path,
        {
            "c.vhdx": child_with({"relative_path": value}),
            "vm/base.vhdx": small_disk(),
            "C:/vm/base.vhdx": small_disk(),
        },
    )
    assert refusal_of(path).endswith(f"; tried {tmp_path / 'base.vhdx'}: does not exist")


@pytest.mark.parametrize(
    "value", [".", "..", "\\", "/", ".\\", "..\\", "C:\\", "\0", "a\0b", "\n", "x" * 300, "*", "~"]
)
def test_path_that_names_no_file_is_a_missing_parent(value: str, tmp_path: Path) -> None:
    assert "expected" in refusal_of(family(tmp_path, "base.vhdx", relative_path=value))


@pytest.mark.parametrize("value", ["\ud800", ".\\\udc00", ".\\\udc80.vhdx", "sub\\\udbffb"])
def test_path_with_unpaired_surrogate_is_a_missing_parent(value: str, tmp_path: Path) -> None:
    path = family(tmp_path, "sub/base.vhdx", relative_path=value)
    assert "does not exist" in refusal_of(path)


# -- order (R102) ----------------------------------------------------------------------------


def other_parent() -> ImageSpec:
    """Describe a disk that is not the parent."""
    return small_disk(data_write_guid=small_disk().virtual_disk_id)


def test_paths_are_tried_in_their_order(tmp_path: Path) -> None:
    """Item 87: the first leads to an existing but wrong file, the second to nothing."""
    child = child_with(
        {
            "absolute_win32_path": "C:\\vm\\third.vhdx",
            "relative_path": ".\\first.vhdx",
            "volume_path": "\\\\?\\Volume{0}\\second.vhdx",
        }
    )
    files = {"c.vhdx": child, "first.vhdx": other_parent(), "third.vhdx": small_disk()}
    path = write_files(tmp_path, files)
    before = open_files()
    assert parents_of(path) == [str(tmp_path / "third.vhdx")]
    assert open_files() == before


def test_relative_path_goes_first_and_own_folder_next(
    tmp_path: Path,
) -> None:
    child = child_with({"relative_path": "sub\\base.vhdx"})
    other = tmp_path / "other"
    names = ["in/sub/base.vhdx", "in/base.vhdx", "other/base.vhdx"]
    path = write_files(tmp_path, {"in/c.vhdx": child} | dict.fromkeys(names, small_disk()))
    for name in names:
        assert parents_of(path, other) == [str(tmp_path / name)]
        (tmp_path / name).unlink()
    message = refusal_of(path, other)
    places = [
        f"{tmp_path / 'in/sub/base.vhdx'}: does not exist",
        f"{tmp_path / 'in/base.vhdx'}: does not exist",
        f"{tmp_path / 'other/base.vhdx'}: does not exist",
    ]
    assert message.endswith("; tried " + "; ".join(places))


def test_folders_are_searched_in_their_order(tmp_path: Path) -> None:
    files = {"in/c.vhdx": child_with({"relative_path": RELATIVE})}
    files |= {"one/base.vhdx": other_parent(), "two/base.vhdx": small_disk()}
    path = write_files(tmp_path, files)
    folders = [tmp_path / name for name in ("none", "one", "two")]
    assert parents_of(path, *folders) == [str(tmp_path / "two/base.vhdx")]


def test_grandparent_is_searched_beside_the_parent(tmp_path: Path) -> None:
    """Not that of the child, from which it was found."""
    top = child_with({"relative_path": "..\\middle\\m.vhdx"})
    middle = child_with({"relative_path": RELATIVE}, data_write_guid=small_disk().data_write_guid)
    files = {"top/t.vhdx": top, "middle/m.vhdx": middle, "middle/base.vhdx": small_disk()}
    path = write_files(tmp_path, files)
    found = parents_of(path, tmp_path / "middle")
    assert [Path(name).name for name in found] == ["m.vhdx", "base.vhdx"]


# -- confinement (R103) ----------------------------------------------------------------------


def test_relative_path_out_of_the_folder_needs_permission(tmp_path: Path) -> None:
    """To the folder above, by naming that folder or the file itself."""
    files = {"vm/snap/c.vhdx": child_with({"relative_path": "..\\base.vhdx"})}
    path = write_files(tmp_path, files | {"vm/base.vhdx": small_disk()})
    assert f"{path.parent}/../base.vhdx: {OUTSIDE}" in refusal_of(path)
    assert f"{path.parent}/../base.vhdx: {OUTSIDE}" in refusal_of(path, tmp_path / "vm" / "snap")
    for folder in (tmp_path / "vm", tmp_path, tmp_path / "vm" / "snap" / ".."):
        assert [Path(name).name for name in parents_of(path, folder)] == ["base.vhdx"]
    assert read_chain(path, parents=[tmp_path / "vm" / "base.vhdx"])[:4] == b"root"


def test_folder_with_an_allowed_prefix_is_outside(tmp_path: Path) -> None:
    files = {"in/c.vhdx": child_with({"relative_path": "..\\inside\\base.vhdx"})}
    path = write_files(tmp_path, files | {"inside/base.vhdx": small_disk()})
    assert OUTSIDE in refusal_of(path)


@pytest.mark.parametrize("names", [["base.vhdx"], ["Base.vhdx", "bAsE.vhdx"], []])
def test_folder_outside_is_not_even_listed(names: list[str], tmp_path: Path) -> None:
    """A message must not reveal which names it holds, in whatever case."""
    path = write_files(
        tmp_path / "in", {"c.vhdx": child_with({"relative_path": "..\\secret\\BASE.vhdx"})}
    )
    write_files(tmp_path / "secret", {"x.vhdx": small_disk()} | dict.fromkeys(names, small_disk()))
    message = refusal_of(path)
    places = [
        f"{path.parent}/../secret/BASE.vhdx: {OUTSIDE}",
        f"{path.parent}/BASE.vhdx: does not exist",
    ]
    assert message.endswith("; tried " + "; ".join(places))


def test_link_inside_that_leads_outside_is_refused(tmp_path: Path) -> None:
    path = family(tmp_path / "in", "../out/base.vhdx", relative_path=RELATIVE)
    (tmp_path / "in" / "base.vhdx").symlink_to(tmp_path / "out" / "base.vhdx")
    assert f"{tmp_path / 'in/base.vhdx'}: {OUTSIDE}" in refusal_of(path)
    assert parents_of(path, tmp_path / "out") == [str(tmp_path / "in/base.vhdx")]


def test_folder_link_to_the_outside_is_refused(tmp_path: Path) -> None:
    path = family(tmp_path / "in", "../out/base.vhdx", relative_path="sub\\BASE.vhdx")
    (tmp_path / "in" / "sub").symlink_to(tmp_path / "out")
    assert f"{tmp_path / 'in/sub/BASE.vhdx'}: {OUTSIDE}" in refusal_of(path)


def test_link_inside_that_stays_inside_is_followed(tmp_path: Path) -> None:
    path = family(tmp_path, "store/real.vhdx", relative_path=RELATIVE)
    (tmp_path / "base.vhdx").symlink_to("store/real.vhdx")
    assert parents_of(path) == [str(tmp_path / "base.vhdx")]


@pytest.mark.parametrize("parent", ["named/base.vhdx", "real/base.vhdx"])
def test_child_that_is_a_link_has_two_folders(parent: str, tmp_path: Path) -> None:
    """That in which it is named, and that in which it lies."""
    family(tmp_path, parent, "real/c.vhdx", relative_path=RELATIVE)
    (tmp_path / "named").mkdir(exist_ok=True)
    path = tmp_path / "named" / "link.vhdx"
    path.symlink_to("../real/c.vhdx")
    assert parents_of(path) == [str(tmp_path / parent)]


def test_parent_dir_may_be_a_link(tmp_path: Path) -> None:
    path = family(tmp_path / "in", "../out/base.vhdx", relative_path=RELATIVE)
    (tmp_path / "link").symlink_to("out")
    assert parents_of(path, tmp_path / "link") == [str(tmp_path / "link/base.vhdx")]


def test_dangling_link_is_a_missing_parent(tmp_path: Path) -> None:
    path = write_files(tmp_path, {"c.vhdx": child_with({"relative_path": RELATIVE})})
    link = tmp_path / "base.vhdx"
    link.symlink_to("gone.vhdx")
    assert f"{link}: No such file or directory" in refusal_of(path)
    link.unlink()
    link.symlink_to("base.vhdx")
    assert f"{link}: Too many levels of symbolic links" in refusal_of(path)


def test_link_changed_after_the_check_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file that was opened is judged, and not the name."""
    path = family(tmp_path / "in", "base.vhdx", relative_path=RELATIVE)
    outside = write_files(tmp_path / "out", {"base.vhdx": small_disk()})

    def open_another(
        path: str | os.PathLike[str],
        log_policy: LogPolicy,
        *,
        salvage: bool,
        remote: RemoteOptions,
    ) -> object:
        name = os.fspath(path)
        other = outside if name.endswith("base.vhdx") else name
        return open_image(other, log_policy, salvage=salvage, remote=remote)

    monkeypatch.setattr(parent_search, "open_image", open_another)
    assert f"{tmp_path / 'in/base.vhdx'}: {OUTSIDE}" in refusal_of(path)


# -- only regular files (R103) ---------------------------------------------------------------


@pytest.mark.parametrize("kind", ["folder", "FIFO", "socket", "device", "link to a device"])
def test_only_a_regular_file_is_opened(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Anything else is refused without being opened, so that nothing blocks."""
    path = write_files(tmp_path, {"c.vhdx": child_with({"relative_path": RELATIVE})})
    place = tmp_path / "base.vhdx"
    opened: list[str] = []
    real_open = os.open

    def recording_open(path: str, *rest: int, **more: int) -> int:
        opened.append(os.fspath(path))
        return real_open(path, *rest, **more)

    if kind == "folder":
        place.mkdir()
    elif kind == "FIFO":
        os.mkfifo(place)
    elif kind == "socket":
        monkeypatch.chdir(tmp_path)
        with socket.socket(socket.AF_UNIX) as server:
            server.bind("base.vhdx")
    elif kind == "device":
        needs_superuser()
        os.mknod(place, 0o600 | 0o020000, os.makedev(1, 5))
    else:
        place.symlink_to("/dev/zero")
    monkeypatch.setattr(os, "open", recording_open)
    message = refusal_of(path)
    monkeypatch.undo()
    expected = OUTSIDE if kind.startswith("link") else "is not a regular file"
    assert f"{place}: {expected}" in message
    assert str(place) not in opened


def test_link_to_an_allowed_device_is_not_opened(tmp_path: Path) -> None:
    path = write_files(tmp_path, {"c.vhdx": child_with({"relative_path": RELATIVE})})
    (tmp_path / "base.vhdx").symlink_to("/dev/zero")
    message = refusal_of(path, Path("/dev"))
    assert f"{tmp_path / 'base.vhdx'}: is not a regular file" in message
