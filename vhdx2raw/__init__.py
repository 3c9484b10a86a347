"""Convert VHDX virtual disks to raw, sparse disk images.

A disk passes these rooms, in this order; each imports only from rooms before it:

    errors          the names of failure, their facts and their exit codes
    structures      every on-disk layout, signature, GUID and limit: bytes to fields
    geometry        the arithmetic of sectors, blocks, chunks and BAT indexes
    sector_bitmap   bits to runs of sectors
    space           which MiB of a file are in use
    zeros           which parts of a buffer are zero
    source          exact positioned reads of one file
    overlay         replayed sectors laid over a source
    foreign         what a file is that is no VHDX
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
    chain           a disk as a child and its parents
    extents         what every range of the virtual disk is: data or zeros
    disk            the virtual disk as a file to read
    pieces          the disk cut into units of work
    sinks           how raw output is made
    convert         the loop
    cli             words, options, progress, exit codes

The format is described in Microsoft's open specification MS-VHDX; section numbers in this
package are those of its revision 8.0, and rules R1, R2, ... are listed in docs/format-rules.md.
"""

from vhdx2raw.chain import Chain, open_chain
from vhdx2raw.convert import ConversionResult, ProgressCallback, convert
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
    TruncatedImageError,
    UnsupportedImageError,
    Vhdx2rawError,
)
from vhdx2raw.extents import Extent, ExtentKind, iter_extents
from vhdx2raw.image import VhdxImage, open_image
from vhdx2raw.log import LogPolicy
from vhdx2raw.sinks import NullSink, Sink, SparseFileSink, StreamSink

__all__ = [
    "Chain",
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
    "Sink",
    "SparseFileSink",
    "StreamSink",
    "TruncatedImageError",
    "UnsupportedImageError",
    "Vhdx2rawError",
    "VhdxImage",
    "VirtualDisk",
    "convert",
    "iter_extents",
    "open",
    "open_chain",
    "open_image",
]
