"""Maps of an output, written as the output is: which ranges of it hold data, and which are holes.

A map is a sink of its own, that gets all that the output gets and keeps only where it was. So it
has a temporary name until the output is complete.
"""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Iterable
from typing import TYPE_CHECKING, Final

from vhdx2raw.errors import OutputError, UntoldResultError
from vhdx2raw.output.base import Sink
from vhdx2raw.output.hashes import new_hash
from vhdx2raw.output.sparse_file import SparseFileSink
from vhdx2raw.source.base import Identity
from vhdx2raw.source.raw_file import RawFile
from vhdx2raw.units import KIB, MIB, ceil_div
from vhdx2raw.zeros import MAX_BUFFER_SIZE, ZEROS

if TYPE_CHECKING:
    from hashlib import _Hash

AnyPath = str | os.PathLike[str]
IS_OUTPUT: Final = "is another output of the same run"
IS_OUTPUT_REMEDY: Final = "choose a name for each"
TEXT_SIZE = 256 * KIB
"""Bytes of a map that are written at once."""
BLOCK_SIZE: Final = 4 * KIB
"""Bytes; what bmaptool itself takes."""
NO_CHECKSUM: Final = "0" * 64
BMAP_HEADER: Final = """\
<?xml version="1.0" ?>
<!-- The blocks of an image that have to be written; the others read as zeros. -->
<bmap version="2.0">
    <ImageSize> {image_size} </ImageSize>
    <BlockSize> {block_size} </BlockSize>
    <BlocksCount> {blocks_count} </BlocksCount>
    <MappedBlocksCount> {mapped_count:<{width}} </MappedBlocksCount>
    <ChecksumType> sha256 </ChecksumType>
    <!-- Of this file, with zeros in the place of this checksum. -->
    <BmapFileChecksum> {checksum} </BmapFileChecksum>
    <BlockMap>
"""


def open_maps(
    map_out: AnyPath | None,
    bmap: AnyPath | None,
    size: int,
    *,
    replace: bool,
    inputs: Collection[Identity],
    taken: Iterable[AnyPath],
) -> list[MapSink]:
    """Begin those maps of an output that have a path.

    Args:
        map_out: Where to write the one of data and holes.
        bmap: Where to write the one for bmaptool.
        size: Bytes of the output.
        replace: Whether files that have these names already may be replaced.
        inputs: The files that are read, none of which may be a map.
        taken: The names of other outputs.

    Raises:
        OutputError: A file exists, is an input or another output, or cannot be made.
        OSError: The host cannot write there.
    """
    wanted = [(path, kind) for path, kind in ((map_out, MapSink), (bmap, BmapSink)) if path]
    names = [os.path.realpath(name) for name in (*taken, *(path for path, _ in wanted))]
    for path, _ in wanted:
        if names.count(os.path.realpath(path)) > 1:
            raise OutputError(IS_OUTPUT, path=os.fspath(path), remedy=IS_OUTPUT_REMEDY)
    maps: list[MapSink] = []
    try:
        for path, kind in wanted:
            maps.append(kind(path, size, replace=replace, inputs=inputs))
    except BaseException:
        for each in maps:
            each.abort()
        raise
    return maps


class MapSink(Sink):
    """The map of an output as `qemu-img map` writes it in JSON, of data and holes."""

    sequential = True

    def __init__(
        self,
        path: str | os.PathLike[str],
        size: int,
        *,
        replace: bool = False,
        inputs: Collection[Identity] = (),
    ) -> None:
        """Begin a map.

        Args:
            path: Its final name.
            size: Bytes of the output.
            replace: Whether a file that has this name already may be replaced.
            inputs: The files that are read, none of which may be the map.

        Raises:
            OutputError: The file exists, is an input, or cannot be made.
            OSError: The host cannot write there.
        """
        self._file = SparseFileSink(path, 0, replace=replace, inputs=inputs)
        self.name = self._file.name
        self.size = size
        self._text = bytearray()
        self._written = 0
        self._start = self._end = 0
        self._is_data = False
        self._begin()

    def write(self, virtual_offset: int, data: memoryview) -> None:
        self._add(virtual_offset, len(data), is_data=True)

    def zero(self, virtual_offset: int, length: int) -> None:
        self._add(virtual_offset, length, is_data=False)

    def _add(self, virtual_offset: int, length: int, *, is_data: bool) -> None:
        assert virtual_offset == self._end, "a map needs every range in its turn"
        if is_data != self._is_data:
            self._end_range()
            self._start, self._is_data = virtual_offset, is_data
        self._end = virtual_offset + length

    def _begin(self) -> None:
        """Write what comes before the ranges."""

    def _end_range(self) -> None:
        if self._start == self._end:
            return
        entry = {
            "start": self._start,
            "length": self._end - self._start,
            "depth": 0,
            "present": True,
            "zero": not self._is_data,
            "data": self._is_data,
            "offset": self._start,
        }
        self._put(("[" if self._start == 0 else ",\n ") + json.dumps(entry))

    def complete(self) -> None:
        """Write the rest, so that only the name is missing.

        Raises:
            OutputError: It cannot be written.
            OSError: The host could not write.
        """
        self._end_range()
        self._put("]\n")
        self._put_all()

    def _put(self, text: str) -> None:
        self._text += text.encode("ascii")
        if len(self._text) >= TEXT_SIZE:
            self._put_all()

    def _put_all(self) -> None:
        self._file.write(self._written, memoryview(bytes(self._text)))
        self._written += len(self._text)
        self._text.clear()

    def flush(self) -> None:
        self._file.flush()

    def commit(self) -> None:
        self._file.commit()

    def abort(self) -> None:
        self._file.abort()


class BmapSink(MapSink):
    """The block map of an output for bmaptool, with a digest of every range and of itself."""

    _hash: _Hash | None = None
    _hashed = 0
    _first_block = _end_block = 0
    _mapped_count = 0

    def _begin(self) -> None:
        self._put(self._header())

    def _header(self, checksum: str = NO_CHECKSUM) -> str:
        blocks_count = ceil_div(self.size, BLOCK_SIZE)
        return BMAP_HEADER.format(
            image_size=self.size,
            block_size=BLOCK_SIZE,
            blocks_count=blocks_count,
            mapped_count=self._mapped_count,
            width=len(str(blocks_count)),  # lest the header grow when the number is known
            checksum=checksum,
        )

    def write(self, virtual_offset: int, data: memoryview) -> None:
        if virtual_offset // BLOCK_SIZE > self._end_block:
            self._end_range()
        if self._hash is None:
            self._hash = new_hash("sha256")
            self._first_block = virtual_offset // BLOCK_SIZE
            self._hashed = self._first_block * BLOCK_SIZE
        # Less than two blocks: what is left of the block before, and what is missing of this one.
        self._hash.update(ZEROS[: virtual_offset - self._hashed])
        self._hash.update(data)
        self._hashed = virtual_offset + len(data)
        self._end_block = ceil_div(self._hashed, BLOCK_SIZE)

    def zero(self, virtual_offset: int, length: int) -> None:
        """Do nothing: what is in no range is zeros."""

    def _end_range(self) -> None:
        if self._hash is None:
            return
        self._hash.update(ZEROS[: min(self._end_block * BLOCK_SIZE, self.size) - self._hashed])
        first, last = self._first_block, self._end_block - 1
        blocks = f"{first}-{last}" if first < last else f"{first}"
        self._put(f'        <Range chksum="{self._hash.hexdigest()}"> {blocks} </Range>\n')
        self._mapped_count += self._end_block - first
        self._hash = None

    def complete(self) -> None:
        self._end_range()
        self._put("    </BlockMap>\n</bmap>\n")
        self._put_all()
        self._file.write(0, memoryview(self._header().encode("ascii")))
        digest, path = new_hash("sha256"), self._file.readable_path
        assert path is not None, "it is a file"
        with RawFile(path) as file:
            for start in range(0, self._written, MIB):
                digest.update(file.pread(start, min(MIB, self._written - start)))
        self._file.write(0, memoryview(self._header(digest.hexdigest()).encode("ascii")))


class MappedSink(Sink):
    """Passes everything on to another sink and to the maps of it.

    It takes everything in order, from one thread, and nothing cloned. What makes no holes gets
    zeros, so that there is a map of a stream as well.
    """

    sequential = True
    makes_holes = True

    def __init__(self, inner: Sink, maps: Iterable[MapSink]) -> None:
        """Pass on what goes to `inner`."""
        self._inner = inner
        self._maps = tuple(maps)
        self._all: tuple[Sink, ...] = (inner, *self._maps)
        self._is_flushed = False
        self.zeroing_is_work = inner.zeroing_is_work or not inner.makes_holes
        self.piece_size = inner.piece_size
        self.name = inner.name
        self.readable_path = inner.readable_path

    def write(self, virtual_offset: int, data: memoryview) -> None:
        for sink in self._all:
            sink.write(virtual_offset, data)

    def zero(self, virtual_offset: int, length: int) -> None:
        for sink in self._maps:
            sink.zero(virtual_offset, length)
        if self._inner.makes_holes:
            self._inner.zero(virtual_offset, length)
            return
        for start in range(0, length, MAX_BUFFER_SIZE):
            self._inner.write(virtual_offset + start, ZEROS[: length - start])

    def flush(self) -> None:
        self._is_flushed = True
        self._inner.flush()

    def commit(self) -> None:
        """Let the output appear, and then the maps, which are written by then.

        Raises:
            UntoldResultError: The output is complete, and a map of it cannot appear.
        """
        for sink in self._maps:
            sink.complete()
            if self._is_flushed:
                sink.flush()
        self._inner.commit()
        failures: list[tuple[str, str]] = []
        for sink in self._maps:
            try:
                sink.commit()
            except OutputError as error:  # noqa: PERF203 - there are two of them
                failures.append((str(error), error.remedy))
            except OSError as error:
                failures.append((f"{sink.name}: {error.strerror}", ""))
        for reason, remedy in failures:
            problem = f"{self.name} is complete, but a map of it is not: {reason}"
            raise UntoldResultError(problem, remedy=remedy)

    def abort(self) -> None:
        for sink in self._all:
            sink.abort()
