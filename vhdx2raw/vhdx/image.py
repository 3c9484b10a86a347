"""One VHDX file, opened: the order in which its parts are read and believed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from vhdx2raw.errors import ImageError
from vhdx2raw.findings import Finding, Findings, Severity
from vhdx2raw.rules import Rule
from vhdx2raw.source.base import Closable, Source
from vhdx2raw.source.file_object import AnyFile, open_source
from vhdx2raw.source.remote.options import DEFAULTS, RemoteOptions
from vhdx2raw.vhdx.allocation import Allocation, check_allocation
from vhdx2raw.vhdx.bat import Bat
from vhdx2raw.vhdx.file_state import (
    FileState,
    find_change,
    read_state,
    wait_for_distinct_times,
)
from vhdx2raw.vhdx.geometry import Geometry
from vhdx2raw.vhdx.header import HeaderSection, read_header_section
from vhdx2raw.vhdx.log import LogPolicy, LogReport, LogState, replay_log
from vhdx2raw.vhdx.metadata import Metadata, read_metadata
from vhdx2raw.vhdx.region import RegionTable, read_region_table
from vhdx2raw.vhdx.region_search import RegionSearch
from vhdx2raw.vhdx.space import SpaceMap
from vhdx2raw.vhdx.unclaimed import check_unclaimed

if TYPE_CHECKING:
    from vhdx2raw.source.remote.url import RemoteUrl


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class VhdxImage(Closable):
    """One opened and checked VHDX file. Close it, or use it as a context manager.

    Attributes:
        source: The bytes of the file, with the log replayed.
        log: What was done with the log.
        header_section: The file type identifier and the current header.
        regions: Where the regions lie.
        metadata: The known metadata items.
        geometry: Sizes and counts that follow from the metadata.
        bat: The block allocation table.
        allocation: What the table says as a whole.
        state: What the file was like when it was opened.
        warnings: Rules that the file breaks without harm to its contents.
        damage: Rules that it breaks so that its contents are uncertain or lost; only if it was
            opened to be salvaged.
        salvaging: Whether to go on where something cannot be read.
    """

    source: Source
    log: LogReport
    header_section: HeaderSection
    regions: RegionTable
    metadata: Metadata
    geometry: Geometry
    bat: Bat
    allocation: Allocation
    state: FileState
    warnings: tuple[Finding, ...]
    damage: tuple[Finding, ...] = ()
    salvaging: bool = False

    @property
    def virtual_disk_size(self) -> int:
        return self.geometry.virtual_disk_size

    def find_change(self) -> Finding | None:
        """Return how the file has changed since it was opened; None if it has not (R119)."""
        return find_change(self.state, read_state(self.source, lenient=self.salvaging))

    def has_same_times(self) -> bool:
        """Return whether the host says at once that nothing has changed since it was opened."""
        status = self.state.status
        return self.source.times() == (status.modified_ns, status.changed_ns)

    def close(self) -> None:
        self.source.close()


def open_image(
    path: AnyFile | RemoteUrl,
    log_policy: LogPolicy = LogPolicy.REPLAY,
    *,
    salvage: bool = False,
    regions: Mapping[str, int] | None = None,
    remote: RemoteOptions = DEFAULTS,
) -> VhdxImage:
    """Open one VHDX file and check everything about it but the contents of its blocks.

    Args:
        path: The file, which is only ever read: its path, or a binary file object that can seek.
            An object must not be used for anything else meanwhile, and stays open.
        log_policy: What to do if its log holds updates.
        salvage: Whether to open a damaged file too, and to show what it still holds.
        regions: Of a file to be salvaged, where its regions lie, by their names ``bat`` and
            ``metadata``, in bytes; the others are looked for where no table shows them.
        remote: How to read it if it is a URL.

    Raises:
        UnsupportedImageError: Not a VHDX, or it needs something that is not supported.
        CorruptImageError: The file breaks the specification or is truncated.
        RemoteError: It could not be read over the network.
        OSError: The host cannot open or read it.
        TypeError: `path` is neither a path nor a binary file object.
    """
    source = open_source(path, remote)
    try:
        search = RegionSearch(source, regions or {}) if salvage else None
        return read_image(source, log_policy, Findings(lenient=salvage), search)
    except BaseException as error:
        source.close()
        if isinstance(error, ImageError):
            error.path = source.name
        raise


def read_image(
    source: Source, log_policy: LogPolicy, findings: Findings, search: RegionSearch | None = None
) -> VhdxImage:
    """Read the parts of a file in the only order in which they can be believed.

    The errors are those of `open_image`; to a lenient reader, those that nothing can replace.
    """
    if source.unwatched:
        findings.warn(Rule.FILE_CHANGED, "file", source.unwatched)
    wait_for_distinct_times(source)
    state = read_state(source, lenient=findings.lenient)
    # 1. What the log cannot change: the identifier and the current header.
    header_section = read_header_section(source, findings, search)
    # 2. The log, before anything that it may rewrite.
    source, log = replay_log(source, header_section, log_policy, findings)
    # 3. Where the regions lie.
    regions = read_region_table(source, header_section, findings, search)
    # 4. What the disk is.
    metadata = read_metadata(source, regions.metadata, findings)
    geometry = Geometry(
        metadata.virtual_disk_size,
        metadata.block_size,
        metadata.logical_sector_size,
        metadata.has_parent,
    )
    # 5. Where its blocks lie, and that they can lie there.
    bat = Bat(source, regions.bat, geometry, lenient=findings.lenient)
    space = SpaceMap()
    allocation = check_allocation(bat, regions, source.size, findings, space)
    if log.state is not LogState.IGNORED:  # else what has a place may be known to the log alone
        check_unclaimed(source, state.status.size, bat, space, findings)
    return VhdxImage(
        source,
        log,
        header_section,
        regions,
        metadata,
        geometry,
        bat,
        allocation,
        state,
        findings.warnings,
        findings.of(Severity.ERROR),
        findings.lenient,
    )
