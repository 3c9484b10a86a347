"""What a raw image holds, in a file beside it: which version of which disk.

A raw image that is changed in place cannot appear complete under its name at the end. So a small
file, which is only ever replaced as a whole, says before and after what the image holds. While it
says "applying", the image is a mixture of two versions, and only the same work may go on.

A version is known by its DataWriteGuid. But a VM that is running may write to a file more than once
under one GUID, so what the file was like is recorded as well.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Literal
from uuid import UUID

from vhdx2raw.disk.partition import PartitionFile
from vhdx2raw.disk.virtual_disk import VirtualDisk
from vhdx2raw.errors import OutputError
from vhdx2raw.output.base import EXISTS
from vhdx2raw.output.opening import is_block_device
from vhdx2raw.output.sparse_file import SparseFileSink
from vhdx2raw.source.raw_file import RawFile
from vhdx2raw.units import KIB
from vhdx2raw.vhdx.log import LogState

FORMAT = 1
SUFFIX = ".state.json"
SAMPLE_SIZE = 4 * KIB
SAMPLE_COUNT = 256
MAX_STATE_SIZE = 64 * KIB
DIGEST_SIZE = 8
UNREADABLE_REMEDY = "convert the disk anew, and save its state"
ANEW_REMEDY = "convert the disk anew"

Work = Literal["apply", "update"]
"""What is done to an image in place: put a checkpoint onto it, or write all that differs."""


@dataclass(frozen=True, slots=True)
class Version:
    """A version of a virtual disk, as one VHDX file has it.

    Attributes:
        data_write_guid: What a child of that file names as its parent.
        filename: The file, for people.
        file_size: Its bytes.
        modified_ns: When it was written last; None if that is not known.
        headers: A digest of its two headers.
        version: What the server that it lies on calls this version of it.
    """

    data_write_guid: str
    filename: str
    file_size: int
    modified_ns: int | None
    headers: str
    version: str | None = None

    def __str__(self) -> str:
        return f"{self.filename} (DataWriteGuid {self.data_write_guid})"

    def is_same_file_state(self, other: Version) -> bool:
        """Return whether nothing was written to the file in between, wherever it lies."""
        return replace(self, filename="") == replace(other, filename="")


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageState:
    """What a raw image holds.

    Attributes:
        holds: The version that it held completely last.
        applying: The version that it is being brought to, if that was begun and not ended.
        work: How.
        virtual_disk_size: Bytes of the disk that it holds.
        logical_sector_size: Bytes of a sector of that disk.
        modified_ns: When the image was written last, by its file system; 0 for a device, which has
            no such time.
        sample: Digests of blocks at fixed places.
        written: When this was written.
        program: The program that wrote it, and its version.
    """

    holds: Version
    applying: Version | None = None
    work: Work | None = None
    virtual_disk_size: int
    logical_sector_size: int
    modified_ns: int
    sample: tuple[str, ...]
    written: str = ""
    program: str = ""


def version_of(disk: VirtualDisk) -> Version:
    """Return the version that an open disk is."""
    image = disk.chain.child
    return Version(
        str(image.header_section.header.data_write_guid),
        disk.name,
        image.state.status.size,
        image.state.status.modified_ns,
        hashlib.sha256(b"".join(image.state.headers)).hexdigest(),
        image.state.status.version,
    )


def require_version(disk: VirtualDisk) -> None:
    """Make sure that a disk is what its DataWriteGuid says, and not a part of that.

    Raises:
        ValueError: It was salvaged, or opened without the updates in a log, or is a partition.
    """
    if isinstance(disk, PartitionFile):
        raise ValueError("a partition is no version of a disk")  # noqa: TRY004 - of a right type
    ignored = any(image.log.state is LogState.IGNORED for image in disk.chain.images)
    if disk.chain.salvaging or ignored:
        raise ValueError("what is salvaged, or read without its log, is no version of a disk")


def default_state_path(image: str | os.PathLike[str]) -> str:
    """Return where the state of a regular file is kept.

    Raises:
        OutputError: It is a block device.
    """
    if is_block_device(image):
        problem = "is a block device, beside which no state is kept"
        raise OutputError(problem, path=os.fspath(image), remedy="name a file with {state}")
    return f"{os.fspath(image)}{SUFFIX}"


def require_writable(path: str, image: str, disk: VirtualDisk) -> None:
    """Refuse now what `write_state` would refuse when the work is done.

    Raises:
        OutputError: The state file would replace something that is none, or cannot be made.
        OSError: The host cannot write there.
    """
    if os.path.realpath(path) == os.path.realpath(image):
        raise OutputError("is the image itself", path=path, remedy="name another file with {state}")
    SparseFileSink(path, 0, replace=True, inputs=disk.chain.identities).abort()
    if os.path.lexists(path):
        try:
            read_state(path)
        except OutputError as error:
            problem = f"{EXISTS}, and {error.message}"
            raise OutputError(problem, path=path, remedy="remove it, or name another") from error


def observe(image: str | os.PathLike[str], disk: VirtualDisk) -> ImageState:
    """Return the state of an image that holds just what `disk` is.

    Raises:
        OSError: The host could not read the image.
    """
    with RawFile(image, max_device_size=disk.size) as raw:
        return ImageState(
            holds=version_of(disk),
            virtual_disk_size=disk.size,
            logical_sector_size=disk.metadata.logical_sector_size,
            modified_ns=_modified_ns(raw),
            sample=tuple(_digest_at(raw, place) for place in _places(disk.size)),
        )


def _places(size: int) -> list[int]:
    """Return where the samples of a disk begin, the first and the last blocks among them."""
    last = max(0, size - SAMPLE_SIZE)
    return sorted({last * index // (SAMPLE_COUNT - 1) for index in range(SAMPLE_COUNT)})


def _modified_ns(raw: RawFile) -> int:
    status = os.fstat(raw.descriptor)
    return status.st_mtime_ns if stat.S_ISREG(status.st_mode) else 0


def _digest_at(raw: RawFile, place: int) -> str:
    data = raw.pread(place, min(SAMPLE_SIZE, raw.size - place))
    return hashlib.blake2b(data, digest_size=DIGEST_SIZE).hexdigest()


def read_state(path: str) -> ImageState:
    """Read a state file.

    Raises:
        OutputError: It is missing, cut off, or of another version of this program.
        OSError: The host could not read it.
    """
    try:
        with Path(path).open("rb") as file:
            text = file.read(MAX_STATE_SIZE)
    except FileNotFoundError:
        remedy = "convert the base with {save_state} first, or name the state file with {state}"
        raise OutputError("there is no state file", path=path, remedy=remedy) from None
    try:
        facts = json.loads(text)
        if facts.pop("format") != FORMAT:
            problem = "is a state file of another version of this program"
            raise OutputError(problem, path=path, remedy=UNREADABLE_REMEDY)
        return _state_of(facts)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        problem = "is no state file, or was cut off"
        raise OutputError(problem, path=path, remedy=UNREADABLE_REMEDY) from error


def _state_of(facts: dict[str, Any]) -> ImageState:
    facts = _with_underscores(facts)
    for name in ("holds", "applying"):
        if facts[name] is not None:
            version = Version(**facts[name])
            facts[name] = replace(version, data_write_guid=str(UUID(version.data_write_guid)))
    state = ImageState(**facts | {"sample": tuple(facts["sample"])})
    numbers = (state.virtual_disk_size, state.logical_sector_size, state.modified_ns)
    if not all(type(number) is int for number in numbers) or state.virtual_disk_size <= 0:
        raise ValueError("a number is missing")
    if len(state.sample) != len(_places(state.virtual_disk_size)):
        raise ValueError("samples are missing")
    return state


def write_state(path: str, state: ImageState) -> None:
    """Replace a state file as a whole, on stable storage when this returns.

    Raises:
        OutputError: It cannot be made.
        OSError: The host could not write.
    """
    from importlib import metadata  # noqa: PLC0415 - takes a while

    program = f"vhdx2raw {metadata.version('vhdx2raw')}"
    written = datetime.now(timezone.utc).isoformat(timespec="seconds")
    state = replace(state, written=written, program=program)
    replace_json(path, _with_dashes({"format": FORMAT, **asdict(state)}))


def replace_json(path: str, facts: dict[str, Any]) -> None:
    """Replace a file as a whole by some facts, on stable storage when this returns.

    Raises:
        OutputError: It cannot be made.
        OSError: The host could not write.
    """
    data = json.dumps(facts, indent=2).encode("ascii") + b"\n"
    sink = SparseFileSink(path, len(data), replace=True)
    try:
        sink.write(0, memoryview(data))
        sink.flush()
        sink.commit()
    except BaseException:
        sink.abort()
        raise


def begin(image: str, path: str, state: ImageState, version: Version, work: Work) -> None:
    """Record that an image, which is claimed by now, is about to be changed.

    Raises:
        OutputError: Another run has changed it before it was claimed, or the state cannot be kept.
        OSError: The host could not write.
    """
    if read_state(path) != state:
        problem = "was changed by another run of this program just now"
        raise OutputError(problem, path=image, remedy="run the same command once more")
    write_state(path, replace(state, applying=version, work=work))


def _with_dashes(facts: dict[str, Any]) -> dict[str, Any]:
    return {
        name.replace("_", "-"): _with_dashes(value) if isinstance(value, dict) else value
        for name, value in facts.items()
    }


def _with_underscores(facts: dict[str, Any]) -> dict[str, Any]:
    return {
        name.replace("-", "_"): _with_underscores(value) if isinstance(value, dict) else value
        for name, value in facts.items()
    }


def require_same_work(image: str, state: ImageState, version: Version, work: Work) -> None:
    """Make sure that nothing else was begun on an image, and not ended.

    Raises:
        OutputError: It was.
    """
    begun = state.applying
    if begun and (begun.data_write_guid, state.work) != (version.data_write_guid, work):
        problem = f"is being brought from {state.holds} to {begun}"
        again = {"apply": "apply {}", "update": "update it to {}"}[state.work or "apply"]
        name = begun.filename.replace("{", "{{").replace("}", "}}")
        remedy = f"{again.format(name)} once more, to the end, or {ANEW_REMEDY}"
        raise OutputError(problem, path=image, remedy=remedy)


def require_size(image: str, path: str, state: ImageState, new_size: int) -> None:
    """Make sure that an image is as long as its state says, or is becoming `new_size` bytes long.

    Raises:
        OutputError: It has another length, so that it is no image of that disk.
        OSError: The host could not read it.
    """
    with RawFile(image, max_device_size=state.virtual_disk_size) as raw:
        expected = {state.virtual_disk_size, new_size if state.applying else None}
        if raw.size not in expected:
            problem = f"has {raw.size} bytes, and not {state.virtual_disk_size} as {path} says"
            raise OutputError(problem, path=image, remedy=ANEW_REMEDY)


def require_unchanged(
    image: str, path: str, state: ImageState, is_to_change: Callable[[int, int], bool]
) -> None:
    """Make sure that nobody else has written to an image since its state was written.

    Args:
        image: The image.
        path: The state file.
        state: What it says.
        is_to_change: Whether a range, by its offset and length, is changed by the work that was
            begun and not ended. Such ranges are not looked at.

    Raises:
        OutputError: It was changed.
        OSError: The host could not read it.
    """
    with RawFile(image, max_device_size=state.virtual_disk_size) as raw:
        changed = _modified_ns(raw) != state.modified_ns
        if state.applying:
            changed = False
        for place, digest in zip(_places(state.virtual_disk_size), state.sample, strict=True):
            if not (state.applying and is_to_change(place, SAMPLE_SIZE)):
                changed = changed or _digest_at(raw, place) != digest
    if changed:
        problem = f"was changed after {path} was written"
        remedy = f"{ANEW_REMEDY} or, if the change does not matter, use {{force}}"
        raise OutputError(problem, path=image, remedy=remedy)
