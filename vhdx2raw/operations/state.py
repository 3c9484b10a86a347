"""What a raw image holds, in a file beside it: which version of which disk.

A raw image that is changed in place cannot appear complete under its name at the end. So a small
file, which is only ever replaced as a whole, says before and after what the image holds. While it
says "applying", the image is a mixture of two versions, and only the same work may go on.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any
from uuid import UUID

from vhdx2raw.disk.virtual_disk import VirtualDisk
from vhdx2raw.errors import OutputError
from vhdx2raw.output.sparse_file import SparseFileSink
from vhdx2raw.source.raw_file import RawFile
from vhdx2raw.units import KIB

FORMAT = 1
SUFFIX = ".state.json"
SAMPLE_SIZE = 4 * KIB
SAMPLE_COUNT = 256
MAX_STATE_SIZE = 64 * KIB
UNREADABLE_REMEDY = "convert the disk anew, and save its state"


@dataclass(frozen=True, slots=True)
class Version:
    """A version of a virtual disk, as one VHDX file has it.

    Attributes:
        data_write_guid: What a child of that file names as its parent.
        filename: The file, for people.
    """

    data_write_guid: str
    filename: str

    def __str__(self) -> str:
        return f"{self.filename} (DataWriteGuid {self.data_write_guid})"


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageState:
    """What a raw image holds.

    Attributes:
        holds: The version that it held completely last.
        applying: The version that it is being brought to, if that was begun and not ended.
        virtual_disk_size: Bytes of the disk that it holds.
        logical_sector_size: Bytes of a sector of that disk.
        modified_ns: When the image was written last, by the clock of its file system.
        sample: A digest of some of its bytes.
        written: When this was written.
        program: The program that wrote it, and its version.
    """

    holds: Version
    applying: Version | None = None
    virtual_disk_size: int
    logical_sector_size: int
    modified_ns: int
    sample: str
    written: str = ""
    program: str = ""


def version_of(disk: VirtualDisk) -> Version:
    """Return the version that an open disk is."""
    guid = disk.chain.child.header_section.header.data_write_guid
    return Version(str(guid), disk.name)


def default_state_path(image: str | os.PathLike[str]) -> str:
    """Return where the state of a regular file is kept."""
    return f"{os.fspath(image)}{SUFFIX}"


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
            modified_ns=os.fstat(raw.descriptor).st_mtime_ns,
            sample=_sample(raw),
        )


def _sample(raw: RawFile) -> str:
    """Return a digest of blocks at fixed places, the first and the last among them."""
    digest = hashlib.sha256()
    last = max(0, raw.size - SAMPLE_SIZE)
    places = {last * index // (SAMPLE_COUNT - 1) for index in range(SAMPLE_COUNT)}
    for place in sorted(places):
        digest.update(raw.pread(place, min(SAMPLE_SIZE, raw.size - place)))
    return digest.hexdigest()


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
    facts = {name.replace("-", "_"): value for name, value in facts.items()}
    for name in ("holds", "applying"):
        if facts[name] is not None:
            facts[name] = Version(
                str(UUID(facts[name]["data-write-guid"])), facts[name]["filename"]
            )
    state = ImageState(**facts)
    numbers = (state.virtual_disk_size, state.logical_sector_size, state.modified_ns)
    if not all(isinstance(number, int) for number in numbers):
        raise ValueError("a number is missing")
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
    facts = {"format": FORMAT, **asdict(state)}
    data = json.dumps(_with_dashes(facts), indent=2).encode("ascii") + b"\n"
    sink = SparseFileSink(path, len(data), replace=True)
    try:
        sink.write(0, memoryview(data))
        sink.flush()
        sink.commit()
    except BaseException:
        sink.abort()
        raise


def _with_dashes(facts: dict[str, Any]) -> dict[str, Any]:
    return {
        name.replace("_", "-"): _with_dashes(value) if isinstance(value, dict) else value
        for name, value in facts.items()
    }


def check_unchanged(image: str | os.PathLike[str], path: str, state: ImageState) -> None:
    """Make sure that an image is as it was when its state was written.

    Raises:
        OutputError: It was changed, or has another size.
        OSError: The host could not read it.
    """
    remedy = "convert the disk anew or, if the change does not matter, use {force}"
    with RawFile(image, max_device_size=state.virtual_disk_size) as raw:
        if raw.size != state.virtual_disk_size:
            problem = f"has {raw.size} bytes, and not {state.virtual_disk_size} as {path} says"
            raise OutputError(problem, path=os.fspath(image), remedy="convert the disk anew")
        changed = os.fstat(raw.descriptor).st_mtime_ns != state.modified_ns
        if changed or _sample(raw) != state.sample:
            problem = f"was changed after {path} was written"
            raise OutputError(problem, path=os.fspath(image), remedy=remedy)
