"""How raw output is made: a sparse file, a block device, a stream, or nothing at all.

A sink says what it can do, and the loop in `convert` decides what to do about it.
"""

from vhdx2raw.sinks.base import CLONE_ALIGNMENT, Identity, Sink
from vhdx2raw.sinks.block_device import BlockDeviceSink
from vhdx2raw.sinks.hashing import HashingSink
from vhdx2raw.sinks.named import open_sink
from vhdx2raw.sinks.null import NullSink
from vhdx2raw.sinks.sparse_file import SparseFileSink
from vhdx2raw.sinks.stream import StreamSink

__all__ = [
    "CLONE_ALIGNMENT",
    "BlockDeviceSink",
    "HashingSink",
    "Identity",
    "NullSink",
    "Sink",
    "SparseFileSink",
    "StreamSink",
    "open_sink",
]
