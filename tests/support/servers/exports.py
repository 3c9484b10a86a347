"""Files that a web server has, and the command line on their URLs."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.builder import ImageSpec
from tests.support.cli import Outcome, run
from tests.support.files import has_expected_bytes, names_in, write_files
from tests.support.peers import needs_module
from tests.support.servers.web import WebServer

PATIENCE = ("--retries", "2", "--timeout", "2")
"""How long to try again where a test waits for the end of that."""
LONG_AGO = 1_600_000_000
SHORT_PAUSE = 0.01
"""Seconds before a request is made again."""


class Exports:
    """A folder of images on a web server, and a place for outputs.

    Attributes:
        server: The server of it.
        folder: What it serves.
        outputs: Where outputs belong; nothing else may appear there.
    """

    def __init__(
        self, server: WebServer, folder: Path, outputs: Path, capfd: pytest.CaptureFixture[str]
    ) -> None:
        """Take a server that runs."""
        self.server, self.folder, self.outputs = server, folder, outputs
        self._capfd = capfd
        self.target = outputs / "disk.img"

    def write(self, files: Mapping[str, ImageSpec | bytes]) -> str:
        """Write files that are not new; give the URL of the first one."""
        write_files(self.folder, files)
        for name in files:
            # What has a date of this second could be written to once more with the same one.
            os.utime(self.folder / name, (LONG_AGO, LONG_AGO))
        return self.url(next(iter(files)))

    def url(self, name: str) -> str:
        """Give the URL of a file."""
        return f"{self.server.url}/{name}"

    def run(self, *words: str | Path) -> Outcome:
        """Run the command line in this process."""
        return run(self._capfd, *words)

    def convert(self, url: str, *words: str | Path) -> Outcome:
        """Convert a file to the target, with little patience; nothing waits for storage."""
        return run(self._capfd, "--no-sync", *PATIENCE, *words, url, self.target)

    def assert_converts(self, spec: ImageSpec, url: str, *words: str | Path) -> Outcome:
        """Convert a file, which must give its disk; there may be warnings."""
        outcome = self.convert(url, *words)
        assert outcome.exit_code == 0, outcome.err
        assert has_expected_bytes(self.target, spec)
        self.target.unlink()
        return outcome

    def assert_fails(self, code: int, text: str, url: str, *words: str | Path) -> Outcome:
        """Try to convert a file, which must fail with one line, maybe a hint, and no output."""
        outcome = self.convert(url, *words)
        assert (outcome.exit_code, names_in(self.outputs)) == (code, []), outcome.err
        line, *more = [x for x in outcome.err_lines if not x.startswith("vhdx2raw: warning: ")]
        assert line.startswith("vhdx2raw: ")
        assert text in line, outcome.err
        assert len(more) <= 1, outcome.err
        assert all(hint.startswith("vhdx2raw: hint: ") for hint in more)
        return outcome


@contextmanager
def exports(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> Iterator[Exports]:
    """Serve a new folder, if URLs can be read here at all."""
    needs_module("obstore")
    folder, outputs = tmp_path / "exports", tmp_path / "outputs"
    folder.mkdir()
    outputs.mkdir()
    with WebServer(folder) as server, pytest.MonkeyPatch.context() as patch:
        from vhdx2raw.source.remote import transfer  # noqa: PLC0415 - which needs obstore

        patch.setattr(transfer, "FIRST_PAUSE", SHORT_PAUSE)
        yield Exports(server, folder, outputs, capfd)
