"""Families of images on disk, what their chains hold, and what must become of them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import UUID

from tests.support.builder import (
    MIB,
    Block,
    BlockState,
    ImageSpec,
    child_of,
    golden_g1,
    golden_g3,
    linkage_text,
    parent_locator,
    same_bytes_guid,
)
from vhdx2raw.disk.chain import Chain, OpenOptions, open_chain
from vhdx2raw.disk.extents import ExtentKind
from vhdx2raw.disk.walk import iter_extents
from vhdx2raw.errors import (
    CorruptImageError,
    ParentCycleError,
    ParentMismatchError,
    ParentNotFoundError,
    UnsupportedImageError,
    Vhdx2rawError,
)
from vhdx2raw.vhdx.image import VhdxImage

PARTIAL = BlockState.PARTIALLY_PRESENT
BASE_NAME = "base.vhdx"
RELATIVE = ".\\base.vhdx"
OTHER_GUID = same_bytes_guid(0x99)
LARGEST_WHOLE_COMPARISON = 64 * MIB
"""Bytes of a disk that is compared as a whole; of a larger one only what lies around blocks."""


def base_disk(**fields: Any) -> ImageSpec:  # noqa: ANN401 - those of ImageSpec
    """Describe a root of 4 MiB, all of it data that names its address."""
    defaults: dict[str, Any] = {
        "virtual_disk_size": 4 * MIB,
        "block_size": MIB,
        "blocks": {index: Block() for index in (3, 1, 0, 2)},
    }
    return ImageSpec(**(defaults | fields))


def small_disk(**fields: Any) -> ImageSpec:  # noqa: ANN401
    """Describe a root of 1 MiB that takes little time to write."""
    return ImageSpec(MIB, MIB, **({"blocks": {0: Block(content={0: b"root"})}} | fields))


def child_with(locator: Mapping[str, str], **fields: Any) -> ImageSpec:  # noqa: ANN401
    """Describe an empty child of `small_disk` with these keys besides the right linkage."""
    keys = {"parent_linkage": linkage_text(small_disk().data_write_guid), **locator}
    return child_of(small_disk(), RELATIVE, **({"locator": parent_locator(keys)} | fields))


def chain_bytes(chain: Chain, offset: int = 0, length: int | None = None) -> bytes:
    """Assemble a range of the disk from its extents, which must tile it."""
    data = bytearray()
    for extent in iter_extents(chain, offset, length):
        assert extent.virtual_offset == offset + len(data)
        piece = bytearray(extent.length)
        if extent.kind is ExtentKind.DATA:
            extent.read_into(memoryview(piece))
        data += piece
    return bytes(data)


def disk_bytes(image: VhdxImage, offset: int = 0, length: int | None = None) -> bytes:
    """Do the same for the disk of a single image."""
    return chain_bytes(Chain((image,)), offset, length)


def read_chain(path: Path, **options: Any) -> bytes:  # noqa: ANN401 - those of OpenOptions
    """Open a chain and read the whole disk."""
    with open_chain(path, OpenOptions(**options)) as chain:
        return chain_bytes(chain)


def names_of(chain: Chain) -> list[str]:
    """Give the base names of the files, child first."""
    return [Path(image.source.name).name for image in chain.images]


@dataclass(frozen=True)
class Refusal:
    """The error that a chain deserves; `rule` is empty where it is about a parent."""

    error: type[Vhdx2rawError]
    text: str
    rule: str = ""


@dataclass(frozen=True)
class Row:
    """A line of table 7.4 of the format document.

    Attributes:
        case: Its first column.
        files: The images by name, the child first; it describes the right bytes.
        seven_zip: Its column "7z".
        refusal: What must become of it, unless it is to be read.
        warnings: The rules of the warnings that it gives.
    """

    case: str
    files: Mapping[str, ImageSpec]
    seven_zip: str = "ok"
    refusal: Refusal | None = None
    warnings: Sequence[str] = field(default=())


def _row(case: str, blocks: Mapping[int, Block], seven_zip: str = "ok", **fields: Any) -> Row:  # noqa: ANN401
    base = base_disk()
    refusal = fields.pop("refusal", None)
    child = child_of(base, RELATIVE, blocks=dict(blocks), **fields)
    return Row(case, {"child.vhdx": child, BASE_NAME: base}, seven_zip, refusal)


def _linked(case: str, seven_zip: str, *, second: UUID | None = None, text: str = "") -> Row:
    """Give a row whose locator names the parent in another way."""
    base = base_disk()
    keys = {
        "parent_linkage": text or linkage_text(base.data_write_guid if not second else OTHER_GUID)
    }
    keys |= {"relative_path": RELATIVE}
    keys |= {"parent_linkage2": linkage_text(second)} if second else {}
    child = child_of(base, RELATIVE, blocks={2: Block()}, locator=parent_locator(keys))
    warnings: list[str] = []
    return Row(case, {"child.vhdx": child, BASE_NAME: base}, seven_zip, None, warnings)


def table_7_4() -> Sequence[Row]:
    """Give the table, line by line."""
    base = base_disk()
    guid = linkage_text(base.data_write_guid)
    changed = base_disk(data_write_guid=OTHER_GUID)
    other_sectors = base_disk(logical_sector_size=4096)
    absolute = parent_locator({"parent_linkage": guid, "absolute_win32_path": "C:\\vm\\base.vhdx"})
    wrong_type = parent_locator(
        {"parent_linkage": guid, "relative_path": RELATIVE}, locator_type=OTHER_GUID
    )
    child = child_of(base, RELATIVE, blocks={2: Block()})
    itself = child_of(base, ".\\child.vhdx", data_write_guid=base.data_write_guid)
    zeros = {1: BlockState.UNDEFINED, 2: BlockState.ZERO, 3: BlockState.UNMAPPED}
    return (
        _row("child with one FULLY_PRESENT block, no bitmap", {1: Block()}),
        _row(
            "PARTIALLY_PRESENT, bits 0, 1, 3, 8, last",
            {1: Block(PARTIAL, sector_bits={0, 1, 3, 8, 2047})},
        ),
        _row("PARTIALLY_PRESENT, no bit set", {1: Block(PARTIAL, sector_bits=())}),
        _row(
            "PARTIALLY_PRESENT, chunk without a bitmap",
            {1: Block(PARTIAL)},
            "error",
            bitmaps={0: None},
            refusal=Refusal(CorruptImageError, "sector bitmap", "R83"),
        ),
        _row("FULLY_PRESENT with bitmap zeros: child", {1: Block(sector_bits=())}),
        _row(
            "NOT_PRESENT with bitmap ones: parent",
            {1: Block(BlockState.NOT_PRESENT, sector_bits=range(2048))},
        ),
        _row("states 1, 2, 3 in the child: zeros", {k: Block(s) for k, s in zeros.items()}),
        Row("G3", {"g3.vhdx": golden_g3(), "g1.vhdx": golden_g1()}),
        Row(
            "linkage mismatch",
            {"child.vhdx": child, BASE_NAME: changed},
            "refuse",
            Refusal(ParentMismatchError, f"base.vhdx: has the DataWriteGuid {OTHER_GUID}"),
        ),
        _linked("match with parent_linkage2 only", "refuse", second=base.data_write_guid),
        _linked("uppercase GUID", "ok", text=guid.upper()),
        _linked("GUID without braces", "refuse", text=guid[1:-1]),
        Row("file name in another case", {"child.vhdx": child, "BASE.vhdX": base}, "not found"),
        Row(
            "only an absolute path",
            {"child.vhdx": child_of(base, RELATIVE, locator=absolute), BASE_NAME: base},
            "not found",
        ),
        _row(
            "child has larger blocks",
            {0: Block(PARTIAL, sector_bits={9, 4095})},
            block_size=2 * MIB,
        ),
        Row(
            "child has smaller blocks",
            {
                "child.vhdx": child_of(
                    base_disk(block_size=2 * MIB, blocks={0: Block(), 1: Block()}),
                    RELATIVE,
                    block_size=MIB,
                    blocks={1: Block(PARTIAL, sector_bits=range(7, 99))},
                ),
                BASE_NAME: base_disk(block_size=2 * MIB, blocks={0: Block(), 1: Block()}),
            },
        ),
        _row(
            "child larger than the parent",
            {5: Block(PARTIAL, sector_bits={1})},
            "short",
            virtual_disk_size=6 * MIB,
        ),
        _row("child smaller than the parent", {0: Block()}, virtual_disk_size=2 * MIB + 1024),
        _row(
            "no locator",
            {},
            "refuse",
            locator=None,
            has_parent=True,
            refusal=Refusal(CorruptImageError, "a differencing disk needs one: found none", "R94"),
        ),
        Row(
            "unknown locator type",
            {"child.vhdx": child_of(base, RELATIVE, locator=wrong_type), BASE_NAME: base},
            "ok",
            Refusal(UnsupportedImageError, f"is of an unknown type: found {OTHER_GUID}", "R96"),
        ),
        _row("both flags set", {1: Block()}, leave_block_allocated=True),
        Row(
            "child names itself",
            {"child.vhdx": itself},
            "refuse",
            Refusal(ParentCycleError, "child.vhdx: is a file of the chain already"),
        ),
        Row(
            "parent missing",
            {"child.vhdx": child},
            "refuse",
            Refusal(ParentNotFoundError, "base.vhdx: does not exist"),
        ),
        Row(
            "parent with another LSS",
            {"child.vhdx": child, BASE_NAME: other_sectors},
            "reads through",
            Refusal(ParentMismatchError, "has sectors of 4096 bytes, the child of 512"),
        ),
    )
