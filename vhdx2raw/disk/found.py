"""What a file says about itself before its disk is opened: sizes, identity, and its parent's."""

from __future__ import annotations

import io
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING
from uuid import UUID

from vhdx2raw import host
from vhdx2raw.disk.chain import DEFAULTS, OpenOptions
from vhdx2raw.errors import ImageError
from vhdx2raw.findings import Findings
from vhdx2raw.source.base import Identity, Source
from vhdx2raw.source.file_object import open_source
from vhdx2raw.vhdx.header import read_header_section
from vhdx2raw.vhdx.log import replay_log
from vhdx2raw.vhdx.metadata import Metadata, read_metadata
from vhdx2raw.vhdx.region import read_region_table
from vhdx2raw.vhdx.region_search import RegionSearch

if TYPE_CHECKING:
    from vhdx2raw.source.remote.url import RemoteUrl


@dataclass(frozen=True, slots=True, eq=False)
class FoundImage:
    """A VHDX file by its headers, metadata and parent locator; its block table is not looked at.

    Attributes:
        path: The file as it was named.
        identity: The same for every name of the file.
        size: Bytes of the file.
        stored_size: Bytes that it takes up on its host.
        modified_ns: When it was written last, in nanoseconds; 0 where the host does not know.
        data_write_guid: Which version of the disk it holds.
        metadata: What the disk is.
        is_dirty: Whether its log holds updates.
    """

    path: str
    identity: Identity
    size: int
    stored_size: int
    modified_ns: int
    data_write_guid: UUID
    metadata: Metadata
    is_dirty: bool

    @property
    def linkages(self) -> tuple[UUID, ...]:
        """The versions that its parent may be."""
        locator = self.metadata.parent_locator
        return locator.linkages if locator else ()


def read_found_image(path: str | RemoteUrl, options: OpenOptions = DEFAULTS) -> FoundImage:
    """Read what a file says about itself, in the order in which it can be believed.

    Args:
        path: The file; a `RemoteUrl` if not the user but an image has named it.
        options: How it would be opened; of these, what is done with logs and damage counts.

    Raises:
        UnsupportedImageError: Not a VHDX, or it needs something that is not supported.
        CorruptImageError: It breaks the specification.
        RemoteError: It could not be read over the network.
        OSError: The host cannot open or read it.
    """
    with open_source(path, options) as source:
        try:
            return _read(path if isinstance(path, str) else source.name, source, options)
        except ImageError as error:
            error.path = source.name
            raise


def _read(path: str, source: Source, options: OpenOptions) -> FoundImage:
    findings = Findings(lenient=options.salvage)
    search = RegionSearch(source, options.regions) if options.salvage else None
    status = source.status()
    section = read_header_section(source, findings, search)
    replayed, _ = replay_log(source, section, options.log_policy, findings)
    regions = read_region_table(replayed, section, findings, search)
    return FoundImage(
        path,
        source.identity,
        source.size,
        _stored_size(source),
        status.modified_ns or 0,
        section.header.data_write_guid,
        read_metadata(replayed, regions.metadata, findings),
        section.is_dirty,
    )


def _stored_size(source: Source) -> int:
    try:
        return host.allocated_size(os.fstat(source.descriptor))
    except (OSError, io.UnsupportedOperation):  # no file of the host
        return source.size
