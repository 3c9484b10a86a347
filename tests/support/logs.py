"""A disk whose log leaves marks, so that its pages show which entries were replayed.

Its only block is stored zeros. An entry *marks* a page of that block: it fills it with one value.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.builder import (
    DEFAULT_LOG_GUID,
    KIB,
    MIB,
    ZERO_GUID,
    Block,
    DataDescriptorSpec,
    Descriptor,
    ImageSpec,
    LogEntrySpec,
    LogSpec,
    ZeroDescriptorSpec,
    make_dirty,
)
from tests.support.chains import disk_bytes
from vhdx2raw.errors import (
    CorruptImageError,
    ImageError,
    TruncatedImageError,
    UnsupportedImageError,
)
from vhdx2raw.vhdx.image import VhdxImage, open_image
from vhdx2raw.vhdx.log import LogPolicy

PAGE = 4 * KIB
RING = MIB // PAGE
"""Pages in the log."""
DISK_SIZE = 2 * MIB
BLOCK = 4 * MIB
"""Where the block lies in the file, which ends right after it."""
FILE_SIZE = 5 * MIB
BAT = 3 * MIB


def blank_disk(**fields: Any) -> ImageSpec:  # noqa: ANN401 - those of ImageSpec
    """Describe the disk, dirty by its header, with nothing in its log."""
    defaults: dict[str, Any] = {"log_guid": DEFAULT_LOG_GUID, "blocks": {0: Block(content=0)}}
    return ImageSpec(DISK_SIZE, MIB, **(defaults | fields))


def disk_with(*entries: LogEntrySpec, **fields: Any) -> ImageSpec:  # noqa: ANN401
    """Describe the disk with these entries in its log."""
    return blank_disk(log=LogSpec(list(entries)), **fields)


def entry(at: int, number: int, *descriptors: Descriptor, **fields: Any) -> LogEntrySpec:  # noqa: ANN401
    """Describe the entry `number` at page `at` of the ring; `tail` is a page as well."""
    tail = fields.pop("tail", at)
    return LogEntrySpec(at * PAGE, number, list(descriptors), tail=tail * PAGE, **fields)


def mark(page: int, value: int, **fields: Any) -> DataDescriptorSpec:  # noqa: ANN401
    """Fill a page of the block with a value."""
    return DataDescriptorSpec(BLOCK + page * PAGE, bytes([value]) * PAGE, **fields)


def erase(page: int, count: int, **fields: Any) -> ZeroDescriptorSpec:  # noqa: ANN401
    """Fill pages of the block with zeros."""
    return ZeroDescriptorSpec(BLOCK + page * PAGE, count * PAGE, **fields)


def bat_page(*entries: int) -> bytes:
    """Give the first page of a BAT."""
    return b"".join(value.to_bytes(8, "little") for value in entries).ljust(PAGE, b"\0")


def marks_of(disk: bytes) -> dict[int, int]:
    """Give the value of every page that is not zero."""
    marks = {}
    for page in range(len(disk) // PAGE):
        data = disk[page * PAGE : (page + 1) * PAGE]
        if any(data):
            assert data == data[:1] * PAGE, f"page {page} is torn"
            marks[page] = data[0]
    return marks


def marks_in(path: Path, log_policy: LogPolicy = LogPolicy.REPLAY) -> dict[int, int]:
    """Open a file and give the marks on its disk."""
    with open_image(path, log_policy) as image:
        return marks_of(disk_bytes(image, 0, image.virtual_disk_size))


def marks_on(
    spec: ImageSpec, path: Path, log_policy: LogPolicy = LogPolicy.REPLAY
) -> dict[int, int]:
    """Write the image, open it and give the marks on its disk."""
    spec.write(path)
    return marks_in(path, log_policy)


def sha256_of_disk(image: VhdxImage) -> str:
    """Give the SHA-256 of the disk of an image without a parent."""
    digest = hashlib.sha256()
    for offset in range(0, image.virtual_disk_size, MIB):
        digest.update(disk_bytes(image, offset, MIB))
    return digest.hexdigest()


@dataclass(frozen=True)
class Refusal:
    """The error that an image deserves."""

    error: type[ImageError]
    rule: str
    text: str


@dataclass(frozen=True)
class Row:
    """A line of table 7.3 of the format document.

    Attributes:
        case: Its first column.
        spec: An image of that kind.
        outcome: Its column "§2.3.3": the marks on the disk, or the refusal.
        qemu_agrees: Whether qemu-img does the same after repairing a copy. Besides what the table
            says, it takes the entries after a wrap for a sequence of their own, and refuses a
            file with a wrong data sector.
    """

    case: str
    spec: ImageSpec
    outcome: dict[int, int] | Refusal
    qemu_agrees: bool = True


NO_SEQUENCE = Refusal(CorruptImageError, "R31", "no complete sequence of entries")
FLUSHED = Refusal(TruncatedImageError, "R36", "is shorter than it was when its log was written")
NO_LENGTH = Refusal(CorruptImageError, "R15", "holds updates, but its length is zero")
VERSION = Refusal(UnsupportedImageError, "R12", "unknown version of the log: found 1, expected 0")


def _moved_metadata() -> ImageSpec:
    content = {7 * PAGE: b"\x07" * PAGE}
    before = blank_disk(blocks={0: Block(content=content, file_offset=BLOCK)}, log_guid=ZERO_GUID)
    after = blank_disk(
        blocks={0: Block(content=content, file_offset=BLOCK)}, metadata_offset=FILE_SIZE
    )
    return make_dirty(before, after)


def _grown() -> ImageSpec:
    """Place block 1 past the end of the file, with one page of it in the log."""
    table = DataDescriptorSpec(BAT, bat_page(BLOCK | 6, FILE_SIZE | 6))
    return disk_with(entry(0, 1, table, mark(256 + 3, 9), last_file_offset=FILE_SIZE + MIB))


def _of_version_1() -> ImageSpec:
    spec = disk_with(entry(0, 1, mark(0, 1)))
    for header in spec.headers:
        header.log_version = 1
    return spec


def _torn(**how: Any) -> ImageSpec:  # noqa: ANN401
    return disk_with(entry(0, 1, mark(0, 1)), entry(2, 2, mark(1, 2), tail=0, **how))


def table_7_3() -> Sequence[Row]:
    """Give the table, line by line."""
    one = entry(0, 1, mark(0, 1))
    two = entry(2, 2, mark(1, 2), tail=0)
    three = entry(4, 3, mark(2, 3), mark(3, 4), tail=0)
    many = [mark(k, k + 1) for k in range(200)]
    big = FILE_SIZE + MIB
    return (
        Row("one entry", disk_with(one), {0: 1}),
        Row("several entries", disk_with(one, two, three), {0: 1, 1: 2, 2: 3, 3: 4}),
        Row(
            "wrap between entries",
            disk_with(entry(254, 1, mark(0, 1)), entry(0, 2, mark(1, 2), tail=254)),
            {0: 1, 1: 2},
            qemu_agrees=False,
        ),
        Row(
            "wrap between entries, the later one with all that counts",
            disk_with(entry(254, 1, mark(0, 1)), entry(0, 2, mark(0, 1), mark(1, 2), tail=254)),
            {0: 1, 1: 2},
        ),
        Row("wrap inside an entry", disk_with(entry(255, 1, mark(0, 1))), {0: 1}),
        Row("last entry torn: checksum", _torn(checksum=0xBAD), {0: 1}),
        Row(
            "last entry torn: data sector",
            disk_with(one, entry(2, 2, mark(1, 2, sequence_low=1), tail=0)),
            {0: 1},
            qemu_agrees=False,
        ),
        Row(
            "two sequences, the older one first",
            disk_with(one, entry(10, 9, mark(1, 9))),
            {1: 9},
        ),
        Row(
            "two sequences, the newer one first",
            disk_with(entry(0, 9, mark(1, 9)), entry(10, 1, mark(0, 1))),
            {1: 9},
        ),
        Row(
            "zero descriptor",
            disk_with(entry(0, 1, mark(0, 1), mark(1, 2), mark(2, 3), erase(1, 1))),
            {0: 1, 2: 3},
        ),
        Row("zero descriptor of length 0", disk_with(entry(0, 1, mark(0, 1), erase(0, 0))), {0: 1}),
        Row("metadata region moved by the log", _moved_metadata(), {7: 7}),
        Row(
            "stale entry before the tail in the same run",
            disk_with(one, entry(2, 2, mark(1, 2), tail=2)),
            {1: 2},
            qemu_agrees=False,
        ),
        Row(
            "head's Tail outside the run",
            disk_with(one, entry(2, 2, mark(1, 2), tail=100)),
            NO_SEQUENCE,
            qemu_agrees=False,
        ),
        Row(
            "FlushedFileOffset of the head above the file size",
            disk_with(one, entry(2, 2, mark(1, 2), tail=0, flushed_file_offset=big)),
            FLUSHED,
        ),
        Row(
            "FlushedFileOffset of an older entry above the file size",
            disk_with(entry(0, 1, mark(0, 1), flushed_file_offset=big), two),
            {0: 1, 1: 2},
            qemu_agrees=False,
        ),
        Row(
            "301 descriptors in one entry",
            disk_with(entry(0, 1, *many, *[erase(255, 0)] * 101)),
            {k: k + 1 for k in range(200)},
            qemu_agrees=False,
        ),
        Row(
            "LastFileOffset extends the file, a block lies there",
            _grown(),
            {256 + 3: 9},
            qemu_agrees=False,
        ),
        Row(
            "SequenceNumber 0 in the only entry",
            disk_with(entry(0, 0, mark(0, 1))),
            NO_SEQUENCE,
            qemu_agrees=False,
        ),
        Row(
            "gap in the numbers after the first entry",
            disk_with(one, entry(2, 3, mark(1, 3), tail=0)),
            {0: 1},
            qemu_agrees=False,
        ),
        Row("LogGuid set, only an empty entry", disk_with(entry(0, 1)), {}),
        Row("LogGuid set, nothing valid in the log", disk_with(), NO_SEQUENCE, qemu_agrees=False),
        Row("LogGuid set, LogLength 0", disk_with(log_length=0), NO_LENGTH, qemu_agrees=False),
        Row("LogVersion 1, dirty", _of_version_1(), VERSION),
    )
