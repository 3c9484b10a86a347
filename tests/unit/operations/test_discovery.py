"""Which files are found in folders, and who is whose parent: by GUID, whatever they are called."""

import os
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from tests.support.builder import (
    MIB,
    Block,
    ImageSpec,
    child_of,
    linkage_text,
    make_dirty,
    parent_locator,
    same_bytes_guid,
)
from tests.support.chains import small_disk
from tests.support.files import open_files, write_files
from vhdx2raw.disk.chain import OpenOptions
from vhdx2raw.errors import (
    CorruptImageError,
    ParentCycleError,
    ParentMismatchError,
    ParentNotFoundError,
    UnsupportedImageError,
)
from vhdx2raw.operations.discovery import Catalog, discover, iter_files
from vhdx2raw.vhdx.log import LogPolicy

GARBAGE = b"not a VHDX at all, but long enough to be looked at" * 100
Patch = pytest.MonkeyPatch


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: Patch) -> Path:
    """Give the current folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def version(number: int) -> UUID:
    return UUID(int=number)


def root(number: int, **fields: Any) -> ImageSpec:  # noqa: ANN401 - those of ImageSpec
    return small_disk(data_write_guid=version(number), **fields)


def child(parent: ImageSpec, number: int, name: str = "nowhere.vhdx", **fields: Any) -> ImageSpec:  # noqa: ANN401
    return child_of(parent, f".\\{name}", data_write_guid=version(number), **fields)


def fail(error: OSError) -> None:
    raise error


def found(folder: str = ".", **options: Any) -> Catalog:  # noqa: ANN401 - those of OpenOptions
    """Discover all files of a folder, each of which must be closed again."""
    before = open_files()
    catalog = discover(iter_files(folder, fail), OpenOptions(**options))
    assert open_files() == before
    return catalog


def parents(catalog: Catalog) -> dict[str, list[str]]:
    """Give the parents of each image, as far as they are there."""
    return {image.path: [p.path for p in catalog.parents_of(image)] for image in catalog.images}


def tips(catalog: Catalog) -> list[str]:
    return [image.path for image in catalog.tips]


def errors(catalog: Catalog) -> dict[str, type[Exception]]:
    """Give the kind of error for each image whose chain is not complete."""
    all_of = {image.path: catalog.chain_error_of(image) for image in catalog.images}
    return {path: type(error) for path, error in all_of.items() if error}


# -- files --------------------------------------------------------------------------------------


def test_files_are_found_by_their_endings_down_to_the_bottom(folder: Path) -> None:
    names = ["b.VHDX", "a.vhdx", "sub/deep/c.avhdx", "notes.txt", "a.img", "a.vhdx.part", "vhdx"]
    write_files(folder, dict.fromkeys(names, b""))
    (folder / "z.vhdx").symlink_to("notes.txt")
    (folder / "loop").symlink_to("sub")
    (folder / "dir.vhdx").mkdir()
    assert list(iter_files(".", fail)) == [
        *("./a.vhdx", "./b.VHDX", "./z.vhdx"),
        "./sub/deep/c.avhdx",
    ]


def test_a_folder_that_cannot_be_listed_is_reported() -> None:
    reported: list[OSError] = []
    assert list(iter_files("gone", reported.append)) == []
    assert [error.filename for error in reported] == ["gone"]


def test_what_is_no_regular_file_is_broken(folder: Path) -> None:
    os.mkfifo(folder / "fifo.vhdx")
    (folder / "link.vhdx").symlink_to("nowhere")
    catalog = found()
    assert catalog.images == ()
    assert [file.path for file in catalog.broken] == ["./fifo.vhdx", "./link.vhdx"]
    assert [type(file.error) for file in catalog.broken] == [
        UnsupportedImageError,
        FileNotFoundError,
    ]


# -- facts --------------------------------------------------------------------------------------


def test_facts_of_an_image(folder: Path) -> None:
    spec = root(1)
    spec.write(folder / "a.vhdx")
    os.utime("a.vhdx", (5, 7))
    (image,) = found().images
    status = (folder / "a.vhdx").stat()
    assert (image.path, image.identity) == ("./a.vhdx", (status.st_dev, status.st_ino))
    assert (image.size, image.stored_size) == (status.st_size, status.st_blocks * 512)
    assert image.modified_ns == 7 * 10**9
    assert image.data_write_guid == version(1)
    assert image.metadata.virtual_disk_size == MIB
    assert not image.is_dirty


def test_blocks_are_not_looked_at(folder: Path) -> None:
    """The table and all after it are gone: a conversion would fail, this does not."""
    root(1).write(folder / "a.vhdx")
    os.truncate("a.vhdx", 3 * MIB)
    assert tips(found()) == ["./a.vhdx"]


def test_log_is_replayed_before_the_locator_is_believed(folder: Path) -> None:
    base = root(1)
    base.write(folder / "base.vhdx")
    stale = child(root(9), 2)
    make_dirty(stale, child(base, 2)).write(folder / "child.avhdx")
    catalog = found()
    assert parents(catalog)["./child.avhdx"] == ["./base.vhdx"]
    assert [image.is_dirty for image in catalog.images] == [False, True]
    assert errors(found(log_policy=LogPolicy.IGNORE)) == {"./child.avhdx": ParentNotFoundError}
    (broken,) = found(log_policy=LogPolicy.REFUSE).broken
    assert isinstance(broken.error, CorruptImageError)


def test_broken_files_are_kept_with_their_errors(folder: Path) -> None:
    write_files(folder, {"a.vhdx": root(1), "cut.vhdx": root(2), "text.vhdx": GARBAGE})
    os.truncate("cut.vhdx", 2 * MIB + 100)
    catalog = found()
    assert tips(catalog) == ["./a.vhdx"]
    assert [(file.path, str(file.error)[:40]) for file in catalog.broken] == [
        ("./cut.vhdx", "./cut.vhdx: broken: metadata table at fi"),
        ("./text.vhdx", "./text.vhdx: broken: file: is something "),
    ]


def test_damage_is_read_over_to_be_salvaged(folder: Path) -> None:
    base = root(1)
    child(base, 2).write(folder / "child.avhdx")
    base.region_tables[0].signature = base.region_tables[1].signature = b"none"
    base.write(folder / "base.vhdx")
    assert [file.path for file in found().broken] == ["./base.vhdx"]
    assert parents(found(salvage=True))["./child.avhdx"] == ["./base.vhdx"]


# -- parents ------------------------------------------------------------------------------------


def test_parents_are_told_by_version_and_not_by_name(folder: Path) -> None:
    """The base was renamed, and another disk has its name."""
    base = root(1)
    first = child(base, 2, "base.vhdx")
    files = {
        "base.vhdx": root(7),
        "exports/renamed.vhdx": base,
        "exports/snap1.avhdx": first,
        "other/snap2.avhdx": child(first, 3, "base.vhdx"),
    }
    write_files(folder, files)
    catalog = found()
    assert parents(catalog) == {
        "./base.vhdx": [],
        "./exports/renamed.vhdx": [],
        "./exports/snap1.avhdx": ["./exports/renamed.vhdx"],
        "./other/snap2.avhdx": ["./exports/snap1.avhdx", "./exports/renamed.vhdx"],
    }
    assert tips(catalog) == ["./base.vhdx", "./other/snap2.avhdx"]
    assert errors(catalog) == {}


def test_two_branches_are_two_tips(folder: Path) -> None:
    base = root(1)
    write_files(folder, {f"{n}.avhdx": child(base, n) for n in (2, 3)} | {"base.vhdx": base})
    catalog = found()
    assert tips(catalog) == ["./2.avhdx", "./3.avhdx"]
    (base_image,) = (image for image in catalog.images if image not in catalog.tips)
    assert [catalog.parent_of(image) for image in catalog.tips] == [base_image] * 2
    assert [image.path for image in catalog.children_of(base_image)] == ["./2.avhdx", "./3.avhdx"]


def test_second_linkage_counts_too(folder: Path) -> None:
    base = root(1)
    keys = {"parent_linkage": linkage_text(version(8)), "parent_linkage2": linkage_text(version(1))}
    merging = child(base, 2, locator=parent_locator(keys))
    write_files(folder, {"base.vhdx": base, "child.avhdx": merging})
    assert tips(found()) == ["./child.avhdx"]


def test_of_several_copies_the_named_one_is_the_parent(folder: Path) -> None:
    base = root(1)
    write_files(
        folder,
        {"a.vhdx": base, "m.vhdx": base, "z.vhdx": base, "s.avhdx": child(base, 2, "m.vhdx")},
    )
    catalog = found()
    assert parents(catalog)["./s.avhdx"] == ["./m.vhdx"]
    assert tips(catalog) == ["./a.vhdx", "./s.avhdx", "./z.vhdx"]


def test_of_several_copies_the_nearest_one_is_the_parent(folder: Path) -> None:
    base = root(1)
    homes = {"vm1": "vm1", "vm2": "vm2", "vm3": "vm3/disks"}
    files = {f"{home}/base.old.vhdx": base for home in homes.values()}
    write_files(folder, files | {f"{name}/s.avhdx": child(base, 2) for name in homes})
    assert {path: way for path, way in parents(found()).items() if way} == {
        f"./{name}/s.avhdx": [f"./{home}/base.old.vhdx"] for name, home in homes.items()
    }


def test_another_name_of_a_parent_is_no_tip(folder: Path) -> None:
    base = root(1)
    write_files(folder, {"base.vhdx": base, "s.avhdx": child(base, 2)})
    (folder / "hard.vhdx").hardlink_to(folder / "base.vhdx")
    (folder / "soft.vhdx").symlink_to("base.vhdx")
    assert tips(found()) == ["./s.avhdx"]


def test_parent_that_was_not_given_is_found_by_the_locator(folder: Path) -> None:
    base, middle = root(1), child(root(1), 2, "base.vhdx")
    files = {"base.vhdx": base, "far/mid.avhdx": middle, "s.avhdx": child(middle, 3, "mid.avhdx")}
    write_files(folder, files)
    catalog = discover(["s.avhdx"])
    assert errors(catalog) == {"s.avhdx": ParentNotFoundError}
    catalog = discover(["s.avhdx"], OpenOptions(parent_dirs=["far", "."]))
    assert parents(catalog) == {"s.avhdx": ["far/mid.avhdx", "base.vhdx"]}
    assert tips(catalog) == ["s.avhdx"]


def test_opening_leads_only_to_parents_that_lie_where_their_names_are(folder: Path) -> None:
    base, middle = root(1), child(root(1), 2, "base.vhdx")
    files = {"base.vhdx": base, "far/mid.avhdx": middle, "s.avhdx": child(middle, 3, "gone.avhdx")}
    write_files(folder, files | {"b.avhdx": child(base, 4, "base.vhdx")})
    catalog = found()
    leads = {image.path: catalog.leads_to_parents(image) for image in catalog.images}
    assert leads == {
        "./base.vhdx": True,
        "./b.avhdx": True,
        "./s.avhdx": False,
        "./far/mid.avhdx": False,
    }


# -- no parent ----------------------------------------------------------------------------------


def error_of(path: str, **options: Any) -> str:  # noqa: ANN401 - those of OpenOptions
    """Give why a file of the current folder has no parent there."""
    catalog = found(**options)
    (image,) = (image for image in catalog.images if image.path == path)
    return str(catalog.error_of(image))


def test_orphan_says_what_it_lacks_and_where_it_was_sought(folder: Path) -> None:
    orphan = child(root(1), 2, "base.vhdx")
    write_files(folder, {"b.avhdx": orphan, "c.avhdx": child(orphan, 3)})
    catalog = found()
    assert errors(catalog) == {"./b.avhdx": ParentNotFoundError, "./c.avhdx": ParentNotFoundError}
    assert tips(catalog) == ["./c.avhdx"]
    assert error_of("./b.avhdx") == (
        "./b.avhdx: orphan: its parent is not here: expected .\\base.vhdx with the DataWriteGuid"
        f" {version(1)}; tried base.vhdx: does not exist"
    )
    assert error_of("./c.avhdx") == "None"


@pytest.mark.parametrize(
    ("parent", "kind", "problem"),
    [
        (root(5), ParentMismatchError, f"has the DataWriteGuid {version(5)}"),
        (root(1, logical_sector_size=4096), ParentNotFoundError, "has sectors of another size"),
        (GARBAGE, ParentNotFoundError, "file: is something else, not a VHDX"),
    ],
    ids=["another version", "other sectors", "no VHDX"],
)
def test_named_file_that_is_not_the_parent(
    folder: Path, parent: ImageSpec | bytes, kind: type[Exception], problem: str
) -> None:
    write_files(folder, {"base.vhdx": parent, "s.avhdx": child(root(1), 2, "base.vhdx")})
    assert errors(found()) == {"./s.avhdx": kind}
    assert f"tried base.vhdx: {problem}" in error_of("./s.avhdx")


def test_parent_that_is_broken_is_the_error(folder: Path) -> None:
    base = root(1)
    child(base, 2, "base.vhdx").write(folder / "s.avhdx")
    base.region_tables[0].signature = base.region_tables[1].signature = b"none"
    base.write(folder / "base.vhdx")
    assert errors(found()) == {"./s.avhdx": CorruptImageError}
    assert error_of("./s.avhdx").startswith("base.vhdx: region table")


def test_mismatch_can_be_allowed(folder: Path) -> None:
    write_files(folder, {"base.vhdx": root(5), "s.avhdx": child(root(1), 2, "base.vhdx")})
    catalog = found(allow_parent_mismatch=True)
    assert (tips(catalog), errors(catalog)) == (["./s.avhdx"], {})


def test_unknown_locator_is_the_error(folder: Path) -> None:
    keys = {"parent_linkage": linkage_text(version(1))}
    strange = parent_locator(keys, locator_type=same_bytes_guid(0x99))
    child(root(1), 2, locator=strange).write(folder / "s.avhdx")
    assert errors(found()) == {"./s.avhdx": UnsupportedImageError}
    assert errors(found(salvage=True)) == {"./s.avhdx": ParentNotFoundError}


def test_circle_hides_no_file(folder: Path) -> None:
    one = child(root(2), 1, "b.vhdx")
    write_files(folder, {"a.vhdx": one, "b.vhdx": child(one, 2, "a.vhdx")})
    catalog = found()
    assert tips(catalog) == ["./a.vhdx"]
    assert parents(catalog) == {"./a.vhdx": ["./b.vhdx"], "./b.vhdx": []}
    assert errors(catalog) == dict.fromkeys(("./a.vhdx", "./b.vhdx"), ParentCycleError)
    assert error_of("./b.vhdx") == "./b.vhdx: orphan: its parent ./a.vhdx was made from it"


def test_file_that_names_itself_has_no_parent(folder: Path) -> None:
    child(root(1), 1, "a.vhdx", blocks={0: Block()}).write(folder / "a.vhdx")
    catalog = found()
    assert (tips(catalog), errors(catalog)) == (["./a.vhdx"], {"./a.vhdx": ParentCycleError})


def test_named_file_that_is_the_child_itself(folder: Path) -> None:
    child(root(1), 2, "a.vhdx").write(folder / "a.vhdx")
    assert "tried a.vhdx: is a file of the chain already" in error_of("./a.vhdx")
