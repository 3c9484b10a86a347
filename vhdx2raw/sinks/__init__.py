"""How raw output is made: a sparse file, a stream, or nothing at all.

A sink says what it can do, and the loop in `convert` decides what to do about it.
"""

from vhdx2raw.sinks.base import CLONE_ALIGNMENT, Identity, Sink
from vhdx2raw.sinks.null import NullSink
from vhdx2raw.sinks.sparse_file import SparseFileSink
from vhdx2raw.sinks.stream import StreamSink

__all__ = [
    "CLONE_ALIGNMENT",
    "Identity",
    "NullSink",
    "Sink",
    "SparseFileSink",
    "StreamSink",
]
