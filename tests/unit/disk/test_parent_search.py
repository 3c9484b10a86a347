"""Which file is the parent: its identity, and what the user may allow (R98 to R105)."""

import os
import re
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from tests.support.builder import (
    ZERO_GUID,
    Block,
    ImageSpec,
    child_of,
    linkage_text,
    parent_locator,
    same_bytes_guid,
)
from tests.support.chains import (
    OTHER_GUID,
    RELATIVE,
    chain_bytes,
    child_with,
    names_of,
    read_chain,
    small_disk,
)
from tests.support.files import open_files, write_files
from vhdx2raw.disk.chain import OpenOptions, open_chain
from vhdx2raw.errors import (
    CorruptImageError,
    ImageError,
    ParentError,
    ParentMismatchError,
    ParentNotFoundError,
    UnsupportedImageError,
)

GUID = small_disk().data_write_guid
MISMATCH_HINT = (
    "the parent was changed after the child was made, or is another disk, so the result would be"
    " wrong; name the right one with parents=[...] or, if you know that only its identity was"
    " changed, use allow_parent_mismatch="
)
BROKEN_HINT = "if you know its parent, use parents= with allow_parent_mismatch="
NO_IDENTITY = "has no identity, so that its version cannot be checked"
USED_NEVERTHELESS = "is not the version that the child was made from, and is used nevertheless"


def refusal_of(path: Path, error: type[ParentError], **options: Any) -> ParentError:  # noqa: ANN401
    """Open a chain that must be refused as exactly this, and leave nothing open."""
    before = open_files()
    with pytest.raises(error) as caught, open_chain(path, OpenOptions(**options)):
        pass
    assert type(caught.value) is error
    assert open_files() == before
    return caught.value


def write_pair(folder: Path, child: ImageSpec, **parent: Any) -> Path:  # noqa: ANN401
    return write_files(folder, {"child.vhdx": child, "base.vhdx": small_disk(**parent)})


def linked(first: UUID, second: UUID | None = None) -> ImageSpec:
    """Describe a child with these linkages."""
    keys = {"parent_linkage": linkage_text(first), "relative_path": RELATIVE}
    keys |= {"parent_linkage2": linkage_text(second)} if second else {}
    return child_with(keys)


# -- identity (R100, R101) -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("first", "second"), [(GUID, None), (GUID, ZERO_GUID), (OTHER_GUID, GUID), (GUID, OTHER_GUID)]
)
def test_either_linkage_may_match(first: UUID, second: UUID | None, tmp_path: Path) -> None:
    path = write_pair(tmp_path, linked(first, second))
    with open_chain(path) as chain:
        assert chain_bytes(chain)[:4] == b"root"
        assert chain.warnings == ()


def test_refusal_names_both_guids_and_a_remedy(tmp_path: Path) -> None:
    path = write_pair(tmp_path, linked(GUID), data_write_guid=OTHER_GUID)
    error = refusal_of(path, ParentMismatchError)
    assert error.path == str(path)
    assert error.message == (
        f"its parent cannot be used: expected .\\base.vhdx with the DataWriteGuid {GUID}; tried"
        f" {tmp_path / 'base.vhdx'}: has the DataWriteGuid {OTHER_GUID}"
    )
    assert error.hint == MISMATCH_HINT


def test_refusal_names_both_linkages(tmp_path: Path) -> None:
    path = write_pair(tmp_path, linked(GUID, OTHER_GUID), data_write_guid=same_bytes_guid(1))
    error = refusal_of(path, ParentMismatchError)
    assert f"with the DataWriteGuid {GUID} or {OTHER_GUID}; tried" in error.message


def test_identity_is_in_the_current_header(tmp_path: Path) -> None:
    parent = small_disk(data_write_guid=OTHER_GUID)
    parent.headers[0].data_write_guid = GUID
    path = write_files(tmp_path, {"child.vhdx": linked(GUID), "base.vhdx": parent})
    refusal_of(path, ParentMismatchError)
    parent.headers[0].sequence_number = 9
    parent.write(tmp_path / "base.vhdx")
    assert read_chain(path)[:4] == b"root"


def test_zero_second_linkage_matches_no_zero_guid(tmp_path: Path) -> None:
    """R101, item 83."""
    path = write_pair(tmp_path, linked(GUID, ZERO_GUID), data_write_guid=ZERO_GUID)
    error = refusal_of(path, ParentMismatchError)
    assert error.message.endswith(f"has the DataWriteGuid {ZERO_GUID}")


def test_zero_linkage_matches_zero_guid_with_a_warning(
    tmp_path: Path,
) -> None:
    """R101: FreeBSD's mkimg writes such parents."""
    path = write_pair(tmp_path, linked(ZERO_GUID), data_write_guid=ZERO_GUID)
    with open_chain(path) as chain:
        assert chain_bytes(chain)[:4] == b"root"
        ((name, warning),) = chain.warnings
    assert (name, warning.rule) == (str(path), "R101")
    assert str(warning) == f"parent: {NO_IDENTITY} (MS-VHDX 2.6.2.6.3)"


# -- another identity is allowed (R100) ------------------------------------------------------


@pytest.mark.parametrize("named", [False, True])
def test_mismatched_parent_is_used_if_allowed(
    named: bool,  # noqa: FBT001
    tmp_path: Path,
) -> None:
    path = write_pair(tmp_path, linked(GUID), data_write_guid=OTHER_GUID)
    parents = [tmp_path / "base.vhdx"] if named else []
    with open_chain(path, OpenOptions(parents=parents, allow_parent_mismatch=True)) as chain:
        assert chain_bytes(chain)[:4] == b"root"
        ((name, warning),) = chain.warnings
    assert (name, warning.rule) == (str(path), "R100")
    assert str(warning) == (
        f"parent: {USED_NEVERTHELESS}: found DataWriteGuid {OTHER_GUID}, expected {GUID}"
        " (MS-VHDX 2.6.2.6.3)"
    )


def test_right_parent_goes_before_an_allowed_one(tmp_path: Path) -> None:
    child = child_with({"relative_path": ".\\wrong.vhdx", "volume_path": "right.vhdx"})
    wrong = small_disk(data_write_guid=OTHER_GUID, blocks={})
    files = {"child.vhdx": child, "wrong.vhdx": wrong, "right.vhdx": small_disk()}
    path = write_files(tmp_path, files)
    before = open_files()
    with open_chain(path, OpenOptions(allow_parent_mismatch=True)) as chain:
        assert names_of(chain) == ["child.vhdx", "right.vhdx"]
        assert open_files() - before == {str(path), str(tmp_path / "right.vhdx")}
        assert chain.warnings == ()


def test_first_mismatched_parent_is_the_allowed_one(tmp_path: Path) -> None:
    child = child_with({"relative_path": ".\\one.vhdx", "volume_path": "two.vhdx"})
    wrong = {name: small_disk(data_write_guid=OTHER_GUID) for name in ("one.vhdx", "two.vhdx")}
    path = write_files(tmp_path, {"child.vhdx": child} | wrong)
    before = open_files()
    with open_chain(path, OpenOptions(allow_parent_mismatch=True)) as chain:
        assert names_of(chain) == ["child.vhdx", "one.vhdx"]
        assert len(open_files() - before) == 2


def test_allowed_mismatch_allows_no_other_sectors(tmp_path: Path) -> None:
    """R105."""
    path = write_pair(tmp_path, linked(GUID), logical_sector_size=4096)
    error = refusal_of(path, ParentMismatchError, allow_parent_mismatch=True)
    assert "base.vhdx: has sectors of 4096 bytes, the child of 512" in error.message


def test_hint_for_other_sectors_offers_no_mismatch(tmp_path: Path) -> None:
    """R105: the very parent that is needed, so its identity is not the trouble."""
    path = write_pair(tmp_path, linked(GUID), logical_sector_size=4096)
    error = refusal_of(path, ParentMismatchError)
    assert error.hint
    assert "allow_parent_mismatch" not in error.hint


def test_allowed_mismatch_allows_no_missing_parent(tmp_path: Path) -> None:
    """R110: it is not zeros."""
    path = write_files(tmp_path, {"child.vhdx": linked(GUID)})
    error = refusal_of(path, ParentNotFoundError, allow_parent_mismatch=True)
    assert "does not exist" in error.message


# -- broken locators (R95 to R99) ------------------------------------------------------------


@pytest.mark.parametrize(
    ("locator", "error", "rule"),
    [
        (b"", CorruptImageError, "R95"),
        (parent_locator({}, count=0), CorruptImageError, "R95"),
        (parent_locator({}, locator_type=OTHER_GUID), UnsupportedImageError, "R96"),
        (parent_locator({"relative_path": RELATIVE}), CorruptImageError, "R98"),
        (parent_locator({"parent_linkage": "x"}), CorruptImageError, "R99"),
    ],
    ids=["empty", "no entries", "R96", "R98", "R99"],
)
def test_broken_locator_needs_a_named_parent(
    locator: bytes, error: type[ImageError], rule: str, tmp_path: Path
) -> None:
    """R95: parent and linkage have to be both given."""
    child = child_of(small_disk(), RELATIVE, locator=locator)
    path = write_pair(tmp_path, child)
    parents = [tmp_path / "base.vhdx"]
    options: list[dict[str, Any]] = [{}, {"parents": parents}, {"allow_parent_mismatch": True}]
    for choice in options:
        before = open_files()
        with pytest.raises(error) as caught, open_chain(path, OpenOptions(**choice)):
            pass
        assert type(caught.value) is error
        assert (caught.value.finding.rule, caught.value.path) == (rule, str(path))
        assert open_files() == before
        assert caught.value.hint == BROKEN_HINT
    with open_chain(path, OpenOptions(parents=parents, allow_parent_mismatch=True)) as chain:
        assert chain_bytes(chain)[:4] == b"root"
        assert [warning.rule for _, warning in chain.warnings] == [rule, "R100"]
        assert str(chain.warnings[1][1]).endswith("expected unknown (MS-VHDX 2.6.2.6.3)")


def test_wrong_file_with_a_broken_locator_is_named(tmp_path: Path) -> None:
    child = child_of(small_disk(), RELATIVE, locator=parent_locator({}, count=0))
    path = write_files(tmp_path, {"child.vhdx": child})
    gone = tmp_path / "gone.vhdx"
    error = refusal_of(path, ParentNotFoundError, parents=[gone], allow_parent_mismatch=True)
    assert error.message == (
        "its parent cannot be used: expected a file that is not named with the DataWriteGuid"
        f" unknown; tried {gone}: No such file or directory"
    )


def test_locator_without_a_path_needs_the_user(tmp_path: Path) -> None:
    """R98."""
    path = write_pair(tmp_path, child_with({}))
    error = refusal_of(path, ParentNotFoundError)
    assert error.message == (
        "its parent cannot be used: expected a file that is not named with the DataWriteGuid"
        f" {GUID}; tried nothing"
    )
    assert read_chain(path, parents=[tmp_path / "base.vhdx"])[:4] == b"root"


# -- parents named by the user ---------------------------------------------------------------


def three_layers() -> dict[str, ImageSpec]:
    """Describe a chain whose files are found only if they are named."""
    base = small_disk(blocks={0: Block(content={0: b"root", 512: b"root"})})
    middle = child_of(base, ".\\nowhere.vhdx", blocks={})
    top = child_of(middle, ".\\nowhere.vhdx", data_write_guid=same_bytes_guid(0x67))
    return {"top.vhdx": top, "a/middle.vhdx": middle, "b/base.vhdx": base}


def test_parents_are_named_in_the_order_of_the_chain(tmp_path: Path) -> None:
    path = write_files(tmp_path, three_layers())
    parents = [tmp_path / "a/middle.vhdx", tmp_path / "b/base.vhdx"]
    with open_chain(path, OpenOptions(parents=parents)) as chain:
        assert names_of(chain) == ["top.vhdx", "middle.vhdx", "base.vhdx"]
        assert chain_bytes(chain)[:4] == b"root"


def test_parents_in_the_wrong_order_are_refused(tmp_path: Path) -> None:
    path = write_files(tmp_path, three_layers())
    parents = [tmp_path / "b/base.vhdx", tmp_path / "a/middle.vhdx"]
    error = refusal_of(path, ParentMismatchError, parents=parents)
    assert error.path == str(path)
    assert f"{parents[0]}: has the DataWriteGuid {GUID}" in error.message


def test_parents_after_the_named_ones_are_searched(tmp_path: Path) -> None:
    files = three_layers()
    files["a/nowhere.vhdx"] = files.pop("b/base.vhdx")
    path = write_files(tmp_path, files)
    with open_chain(path, OpenOptions(parents=[tmp_path / "a/middle.vhdx"])) as chain:
        assert names_of(chain) == ["top.vhdx", "middle.vhdx", "nowhere.vhdx"]


def test_missing_grandparent_names_the_parent(tmp_path: Path) -> None:
    path = write_files(tmp_path, three_layers())
    middle = tmp_path / "a/middle.vhdx"
    error = refusal_of(path, ParentNotFoundError, parents=[middle])
    assert error.path == str(middle)
    assert f"{tmp_path / 'a/nowhere.vhdx'}: does not exist" in error.message


def test_one_parent_too_many_is_refused(tmp_path: Path) -> None:
    path = write_files(tmp_path, three_layers())
    names = ["a/middle.vhdx", "b/base.vhdx", "b/base.vhdx"]
    error = refusal_of(path, ParentMismatchError, parents=[tmp_path / name for name in names])
    assert str(error) == (
        f"{path}: has no use for the parent {tmp_path / 'b/base.vhdx'}:"
        f" {tmp_path / 'b/base.vhdx'} needs no parent"
    )


def test_parent_for_a_disk_that_has_none_is_refused(tmp_path: Path) -> None:
    path = write_files(tmp_path, {"disk.vhdx": small_disk(), "base.vhdx": small_disk()})
    error = refusal_of(path, ParentMismatchError, parents=[tmp_path / "base.vhdx"])
    assert (
        error.message
        == f"has no use for the parent {tmp_path / 'base.vhdx'}: {path} needs no parent"
    )


def test_named_parent_stands_alone(tmp_path: Path) -> None:
    """R102: if it is wrong, the one beside the child is not taken instead."""
    path = write_pair(tmp_path, linked(GUID))
    gone = tmp_path / "gone.vhdx"
    error = refusal_of(path, ParentNotFoundError, parents=[gone])
    assert error.message.endswith(f"; tried {gone}: No such file or directory")


def test_named_parent_may_lie_anywhere_and_be_a_link(tmp_path: Path) -> None:
    path = write_files(tmp_path, {"in/c.vhdx": linked(GUID), "out/b.vhdx": small_disk()})
    (tmp_path / "link").symlink_to("out/b.vhdx")
    assert read_chain(path, parents=[tmp_path / "link"])[:4] == b"root"


def foreign_files(folder: Path) -> dict[str, str]:
    """Write what is no VHDX, and give its description by name."""
    (folder / "folder").mkdir()
    (folder / "old.vhd").write_bytes(b"conectix".ljust(1024, b"\0"))
    (folder / "fixed.vhd").write_bytes(bytes(1024) + b"conectix".ljust(512, b"\0"))
    (folder / "empty").touch()
    (folder / "text").write_text("a text " * 100)
    os.mkfifo(folder / "fifo")
    (folder / "zero").symlink_to("/dev/zero")
    return {
        "fifo": "is a FIFO, not a VHDX file",
        "zero": "is a character device, not a VHDX file",
        "folder": "is a directory, not a VHDX file",
        "old.vhd": "a legacy VHD image",
        "fixed.vhd": "a legacy VHD image",
        "empty": "empty",
        "text": "something else",
        "gone": "No such file or directory",
    }


@pytest.mark.parametrize(
    "name", ["fifo", "zero", "folder", "old.vhd", "fixed.vhd", "empty", "text", "gone"]
)
def test_named_file_must_be_a_vhdx(name: str, tmp_path: Path) -> None:
    """R109, item 91: and opening it never blocks."""
    description = foreign_files(tmp_path)[name]
    path = write_files(tmp_path, {"child.vhdx": linked(GUID)})
    error = refusal_of(path, ParentNotFoundError, parents=[tmp_path / name])
    assert re.search(f"tried {tmp_path / name}: .*{description}", error.message)


@pytest.mark.parametrize("name", ["folder", "old.vhd", "fixed.vhd", "empty", "text", "gone"])
def test_file_beside_the_child_must_be_a_vhdx(name: str, tmp_path: Path) -> None:
    """R109, item 91: found by its path in the locator."""
    description = foreign_files(tmp_path)[name]
    description = {"folder": "is not a regular file", "gone": "does not exist"}.get(
        name, description
    )
    child = child_with({"relative_path": f".\\{name}", "volume_path": "base.vhdx"})
    path = write_files(tmp_path, {"child.vhdx": child})
    error = refusal_of(path, ParentNotFoundError)
    assert re.search(f"tried {tmp_path / name}: .*{description}.*; {tmp_path}", error.message)
    small_disk().write(tmp_path / "base.vhdx")
    assert read_chain(path)[:4] == b"root"


def test_broken_file_does_not_hide_the_right_one(tmp_path: Path) -> None:
    """R102: nor a wrong one; but if there is no right one, it is the news."""
    child = child_with({"relative_path": ".\\broken.vhdx", "volume_path": "base.vhdx"})
    broken = small_disk(signature=b"vhdxfile")
    broken.region_tables[0].signature = broken.region_tables[1].signature = b"nope"
    files = {"child.vhdx": child, "broken.vhdx": broken, "base.vhdx": small_disk()}
    path = write_files(tmp_path, files)
    assert read_chain(path)[:4] == b"root"
    small_disk(data_write_guid=OTHER_GUID).write(tmp_path / "base.vhdx")
    before = open_files()
    with pytest.raises(CorruptImageError, match="region table") as caught, open_chain(path):
        pass
    assert caught.value.path == str(tmp_path / "broken.vhdx")
    assert open_files() == before
