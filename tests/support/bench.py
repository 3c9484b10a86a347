"""A bench on which described images are written, opened, read and refused."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.support.builder import KIB, ImageSpec
from tests.support.chains import LARGEST_WHOLE_COMPARISON, disk_bytes
from vhdx2raw.errors import ImageError
from vhdx2raw.findings import Finding, Findings, Severity
from vhdx2raw.source.file_object import open_source
from vhdx2raw.vhdx.image import VhdxImage, open_image, read_image
from vhdx2raw.vhdx.log import LogPolicy


class Bench:
    """A folder of images made from descriptions; what it opened it closes."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "disk.vhdx"
        self._opened: list[VhdxImage] = []

    def open(self, spec: ImageSpec) -> VhdxImage:
        """Write the image in place of the one before, and open it."""
        spec.write(self.path)
        image = open_image(self.path)
        self._opened.append(image)
        return image

    def close(self) -> None:
        """Close every image."""
        for image in self._opened:
            image.close()

    def reported(self) -> list[tuple[Severity, Finding]]:
        """Read the image once more; give its warnings, and the notes that only a check prints."""
        findings = Findings()
        with open_source(self.path) as source:
            read_image(source, LogPolicy.REPLAY, findings)
        return findings.reported

    def assert_reads(self, spec: ImageSpec, *expected: tuple[str, str]) -> VhdxImage:
        """Open an image, which gives just these findings (rule, pattern) and its right bytes.

        The bytes of a disk of up to 64 MiB are compared as a whole, those of a larger one around
        both borders of every described block.
        """
        image = self.open(spec)
        found = [finding for _, finding in self.reported()]
        assert [finding.rule for finding in found] == [rule for rule, _ in expected]
        for finding, (_, pattern) in zip(found, expected, strict=True):
            assert re.search(pattern, str(finding)), str(finding)
        assert image.virtual_disk_size == spec.virtual_disk_size
        for offset, end in _ranges_to_compare(spec):
            length = end - offset
            # Not in the assert: pytest would word the difference of megabytes.
            is_right = disk_bytes(image, offset, length) == spec.expected_disk(offset, length)
            assert is_right, f"wrong bytes in {length} from {offset:#x} on"
        return image

    def assert_refused(
        self, spec: ImageSpec, error: type[ImageError], rule: str, pattern: str
    ) -> ImageError:
        """Open an image, which fails with exactly this class, rule and text."""
        with pytest.raises(error, match=pattern) as caught:
            self.open(spec)
        assert type(caught.value) is error
        assert caught.value.finding.rule == rule
        assert caught.value.path == str(self.path)
        return caught.value


def _ranges_to_compare(spec: ImageSpec) -> list[tuple[int, int]]:
    size = spec.virtual_disk_size
    if size <= LARGEST_WHOLE_COMPARISON:
        return [(0, size)]
    borders = [min(size, (index + i) * spec.block_size) for index in spec.blocks for i in (0, 1)]
    return [(max(0, at - 64 * KIB), min(at + 64 * KIB, size)) for at in borders]
