"""What an output has besides the disk: zeros up to a round size, and the footer of a format."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NamedTuple

from vhdx2raw.output import vhd
from vhdx2raw.output.base import Sink
from vhdx2raw.units import MIB, ceil_div
from vhdx2raw.zeros import MAX_BUFFER_SIZE, ZEROS

OutputFormat = Literal["raw", "vhd"]
"""The disk as it is, or with the footer of a fixed VHD."""
HOLE_SIZE = 64 * MIB
"""Bytes made a hole at once, so that the run can be ended in between."""


def rounded_size(disk_size: int, output_format: OutputFormat, round_size: int | None) -> int:
    """Return where the zeros after a disk end; a VHD has whole MiB at least."""
    unit = round_size or (vhd.SIZE_UNIT if output_format == "vhd" else 1)
    return ceil_div(disk_size, unit) * unit


def output_size(disk_size: int, output_format: OutputFormat, round_size: int | None) -> int:
    """Return the bytes that the output of a disk has."""
    footer_size = vhd.FOOTER_SIZE if output_format == "vhd" else 0
    return rounded_size(disk_size, output_format, round_size) + footer_size


class Shape(NamedTuple):
    """The parts of an output, in bytes.

    Attributes:
        disk_size: The disk.
        end: Where the zeros after it end.
        footer: What follows them.
    """

    disk_size: int
    end: int
    footer: bytes = b""

    @property
    def size(self) -> int:
        """All of the output."""
        return self.end + len(self.footer)

    def write_rest(self, sink: Sink, *, writes_zeros: bool, report: Callable[[], None]) -> None:
        """Write what follows the disk.

        Args:
            sink: Where the disk went.
            writes_zeros: Whether zeros are written where holes could be made.
            report: Called now and then; what it raises ends the work.
        """
        makes_hole = sink.makes_holes and not writes_zeros
        step = HOLE_SIZE if makes_hole else MAX_BUFFER_SIZE
        for start in range(self.disk_size, self.end, step):
            length = min(step, self.end - start)
            if makes_hole:
                sink.zero(start, length)
            else:
                sink.write(start, ZEROS[:length])
            report()
        if self.footer:
            sink.write(self.end, memoryview(self.footer))
