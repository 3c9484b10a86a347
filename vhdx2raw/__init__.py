"""Convert VHDX virtual disks to raw, sparse disk images.

A disk passes these rooms, in this order; each imports only from rooms before it:

    errors          the names of failure, their facts and their exit codes
    crc             CRC-32C, fast where the host has it
    structures      every on-disk layout, signature, GUID and limit: bytes to fields
    geometry        the arithmetic of sectors, blocks, chunks and BAT indexes
    sector_bitmap   bits to runs of sectors
    space           which MiB of a file are in use
    zeros           which parts of a buffer are zero
    host            what operating systems do differently
    source          exact positioned reads of one file
    source_object   the same of an open file object
    overlay         replayed sectors laid over a source
    foreign         what a file is that is no VHDX
    file_state      whether a file changes while it is read
    header          is it a VHDX, and which header is current
    log_entry       the entries of a log, each one sound
    log             the active sequence, turned into an overlay
    region          which region table is good, and where the regions lie
    locator         which parent a differencing disk needs
    metadata_table  the metadata items, by their GUID
    metadata        the known metadata items as one checked value
    bat             the block allocation table, as runs of like blocks
    allocation      the table held against the file
    image           the order of opening one file
    parents         where a parent may lie
    parent_search   which of the files there is the parent
    chain           a disk as a child and its parents
    extents         what every range of the virtual disk is: data or zeros
    salvage         what a damaged disk still holds, and what is lost
    disk            the virtual disk as a file to read
    contents        what lies inside a disk: partitions, file systems
    block_map       which file says what a range holds, and the disk as a grid of cells
    check           everything that is wrong with a file
    pieces          the disk cut into units of work
    hashes          the algorithms that can name the contents of a disk
    sinks           how raw output is made
    progress        how far some work has come, told now and then
    ahead           work that threads do ahead of the one who takes its results
    workers         threads that share one plan
    raw_file        a raw disk: its bytes, and which of them are stored
    compare         whether two disks hold the same bytes
    digest          the digest of a whole disk
    convert         the loop
    acceptance      whether a disk is what its user allows
    job             one conversion, from names of files to the result
    cli             words, options, progress, exit codes

The format is described in Microsoft's open specification MS-VHDX; section numbers in this
package are those of its revision 8.0, and rules R1, R2, ... are listed in docs/format-rules.md.
"""

from vhdx2raw.chain import Chain, open_chain
from vhdx2raw.check import CheckReport, check
from vhdx2raw.compare import Comparison, compare
from vhdx2raw.convert import ConversionResult
from vhdx2raw.digest import digest
from vhdx2raw.disk import VirtualDisk
from vhdx2raw.disk import open_disk as open  # noqa: A004 - like gzip.open
from vhdx2raw.errors import (
    CorruptImageError,
    Finding,
    ImageError,
    OutputError,
    ParentCycleError,
    ParentError,
    ParentMismatchError,
    ParentNotFoundError,
    Severity,
    TruncatedImageError,
    UnsupportedImageError,
    Vhdx2rawError,
)
from vhdx2raw.extents import Extent, ExtentKind, iter_extents
from vhdx2raw.image import VhdxImage, open_image
from vhdx2raw.job import convert
from vhdx2raw.log import LogPolicy
from vhdx2raw.progress import ProgressCallback
from vhdx2raw.raw_file import RawFile
from vhdx2raw.sinks import BlockDeviceSink, NullSink, Sink, SparseFileSink, StreamSink

__all__ = [
    "BlockDeviceSink",
    "Chain",
    "CheckReport",
    "Comparison",
    "ConversionResult",
    "CorruptImageError",
    "Extent",
    "ExtentKind",
    "Finding",
    "ImageError",
    "LogPolicy",
    "NullSink",
    "OutputError",
    "ParentCycleError",
    "ParentError",
    "ParentMismatchError",
    "ParentNotFoundError",
    "ProgressCallback",
    "RawFile",
    "Severity",
    "Sink",
    "SparseFileSink",
    "StreamSink",
    "TruncatedImageError",
    "UnsupportedImageError",
    "Vhdx2rawError",
    "VhdxImage",
    "VirtualDisk",
    "check",
    "compare",
    "convert",
    "digest",
    "iter_extents",
    "open",
    "open_chain",
    "open_image",
]
