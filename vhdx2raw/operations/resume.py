"""A conversion that goes on where an earlier run of it has ended.

The temporary file keeps its name, and beside it a journal says up to which offset of the disk it is
complete on stable storage. What lies after that is thrown away.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vhdx2raw.disk.partition import PartitionFile
from vhdx2raw.disk.virtual_disk import VirtualDisk
from vhdx2raw.errors import OutputError
from vhdx2raw.operations.copying import Copy
from vhdx2raw.operations.progress import ProgressCallback
from vhdx2raw.operations.state import replace_json
from vhdx2raw.output.opening import is_block_device
from vhdx2raw.output.resumable_file import ResumableFileSink
from vhdx2raw.units import KIB

if TYPE_CHECKING:
    from vhdx2raw.operations.convert import ConvertOptions

FORMAT = 1
SUFFIX = ".resume.json"
MAX_SIZE = 256 * KIB
RENEW_SECONDS = 5.0


class Resumption:
    """What is kept of a conversion, so that the next run can go on with it.

    Attributes:
        sink: The output.
        start: Where in the disk this run begins, in bytes.
        begun_anew: Why nothing is taken from an earlier run that has left something; or empty.
    """

    def __init__(self, disk: VirtualDisk, path: str, options: ConvertOptions, size: int) -> None:
        """Open the output of `size` bytes, and find out how far an earlier run has come.

        Raises:
            OutputError: It exists, cannot be made, or another run is making it.
            OSError: The host could not read or write.
        """
        if is_block_device(path):
            raise OutputError("is a block device, of which no part is kept", path=path)
        self._facts = _facts_of(disk, options)
        target = Path(os.path.realpath(path)) if options.force else Path(path)
        self._journal = str(target.with_name(f".{target.name}{SUFFIX}"))
        self.sink = ResumableFileSink(
            path,
            size,
            replace=options.force,
            inputs=disk.chain.identities,
        )
        self._copy: Copy | None = None
        self._renewed = time.monotonic()
        try:
            self.start, self.begun_anew = self._read() if self.sink.was_there else (0, "")
            self.sink.forget_after(self.start, size)
        except BaseException:
            self.sink.abort()
            raise

    def _read(self) -> tuple[int, str]:
        """Return how far the earlier run has come, or why that does not count."""
        try:
            with Path(self._journal).open("rb") as file:
                facts = json.loads(file.read(MAX_SIZE))
            done = facts.pop("done")
        except (OSError, ValueError, KeyError, AttributeError, TypeError):
            return 0, "nothing says how far the earlier run has come"
        for name, value in self._facts.items():
            if facts.get(name) != value:
                return 0, CHANGES[name]
        if type(done) is not int or not 0 <= done <= self._facts["size"]:
            return 0, CHANGES["format"]
        return done, ""

    def watched(self, copy: Copy, progress: ProgressCallback) -> ProgressCallback:
        """Return a progress callback that renews the journal every few seconds."""
        self._copy = copy

        def report(done: int, total: int) -> None:
            if time.monotonic() - self._renewed >= RENEW_SECONDS:
                self._renew()
            progress(done, total)

        return report

    def _renew(self) -> None:
        assert self._copy is not None, "there is something to renew it with"
        done = max(self.start, self._copy.low_water())
        self.sink.flush()
        replace_json(self._journal, {**self._facts, "done": done})
        self._renewed = time.monotonic()

    def keep(self) -> None:
        """Record how far this run has come, if that can be done; before the sink is aborted."""
        with suppress(OSError, OutputError):  # a failure is being reported already
            if self._copy is not None and self.sink.can_flush:
                self._renew()

    def discard(self) -> None:
        """Leave nothing to be gone on with."""
        self.sink.discard()
        self.end()

    def end(self) -> None:
        """Remove the journal."""
        with suppress(OSError):
            Path(self._journal).unlink(missing_ok=True)


CHANGES = {
    "format": "the earlier run was of another version of this program",
    "size": "the disk has another size now",
    "files": "the source, or a parent of it, is not as it was",
    "options": "the earlier run had other options",
}
"""Why an earlier run does not count, by the fact that differs."""


def _facts_of(disk: VirtualDisk, options: ConvertOptions) -> dict[str, Any]:
    """Return what must be the same in both runs.

    The device and inode of a file are not among it: a share that was mounted anew has others.
    """
    files = [
        {
            "name": image.source.name if image.source.url else os.path.realpath(image.source.name),
            "bytes": image.state.status.size,
            "modified-ns": image.state.status.modified_ns,
            "version": image.state.status.version,
            "headers": hashlib.sha256(b"".join(image.state.headers)).hexdigest(),
            "log": image.log.state.value,
        }
        for image in disk.chain.images
    ]
    chosen = {name: getattr(options, name) for name in ("holes", "sparse_size", "clone")}
    chosen["partition-start"] = disk.start if isinstance(disk, PartitionFile) else None
    return {"format": FORMAT, "size": disk.size, "files": files, "options": chosen}
