"""Conversions through a proxy where anything goes wrong at random: no output is ever wrong.

VHDX2RAW_REMOTE_RUNS is the number of conversions.
"""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random

import pytest

from tests.support.builder import MIB, Block, BlockState, ImageSpec, child_of, make_dirty
from tests.support.chains import base_disk
from tests.support.files import names_in, sha256_of, write_files
from tests.support.servers import faults
from tests.support.servers.exports import Exports, exports
from tests.support.servers.faults import Choice
from tests.support.servers.web import Fault, Request, Upstream, WebServer

RUNS = int(os.environ.get("VHDX2RAW_REMOTE_RUNS", "20"))
FAULTS = [
    faults.reset(),
    faults.reset(70_000),
    faults.cut_off(0),
    faults.cut_off(70_000),
    faults.stall(20),
    faults.late(20),
    faults.late(0.05),
    faults.status(500),
    faults.status(503, retry_after="0"),
    faults.status(429),
    faults.status(401),
    faults.status(403),
    faults.status(404),
    faults.status(412),
    faults.status(416),
    faults.ignore_range(),
    faults.ignore_version(),
    faults.ignore_version_and_range(),
    faults.short_body(),
    faults.short_body(512),
    faults.long_body(),
    faults.shifted_range(512),
    faults.shifted_range(-MIB),
    faults.wrong_range(),
    faults.wrong_size(),
    faults.without("etag"),
    faults.without("etag", "last_modified"),
    faults.without("content_range"),
    faults.with_headers(etag='"another"'),
    faults.with_headers(content_encoding="gzip"),
    faults.with_headers(last_modified="Thu, 01 Jan 1970 00:00:00 GMT"),
]
PASSING = FAULTS[:10]


@dataclass(frozen=True)
class Case:
    """A disk on the server.

    Attributes:
        files: What there is, the one to convert first.
        disk: What that one holds.
        again: What may be put in its place meanwhile.
        other: What that one holds.
    """

    files: dict[str, ImageSpec]
    disk: ImageSpec
    again: ImageSpec
    other: ImageSpec

    @property
    def name(self) -> str:
        """The file to convert."""
        return next(iter(self.files))


def scattered(tag: str) -> ImageSpec:
    """Describe a disk whose blocks are fetched one by one."""
    blocks = {i: Block(file_offset=(4 + 9 * i) * MIB) for i in (3, 0, 7, 1, 6)}
    return ImageSpec(8 * MIB + 512, MIB, blocks, tag=tag)


def dirty(tag: str) -> tuple[ImageSpec, ImageSpec]:
    """Describe a disk with updates in its log, and what it holds."""
    before = base_disk(blocks={index: Block() for index in (2, 0)}, tag=tag)
    after = base_disk(blocks={**before.blocks, 1: Block(content=b"new")}, tag=tag)
    return make_dirty(before, after), after


def child(content: bytes) -> ImageSpec:
    """Describe a child of `base_disk`."""
    bits = range(1, 2048, 3)
    blocks = {
        1: Block(BlockState.PARTIALLY_PRESENT, sector_bits=bits),
        2: Block(content=content),
    }
    return child_of(base_disk(), ".\\base.vhdx", blocks=blocks)


CASES = [
    Case({"plain/disk.vhdx": scattered("a")}, scattered("a"), scattered("b"), scattered("b")),
    Case({"dirty/disk.vhdx": dirty("a")[0]}, dirty("a")[1], *dirty("b")),
    Case(
        {"chain/child.avhdx": child(b"a"), "chain/base.vhdx": base_disk()},
        child(b"a"),
        child(b"b"),
        child(b"b"),
    ),
]


@pytest.fixture
def place(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> Iterator[Exports]:
    """Give a proxy before the server that has the files."""
    with exports(tmp_path, capfd) as behind, WebServer(Upstream(behind.server.url)) as proxy:
        yield Exports(proxy, behind.folder, behind.outputs, capfd)


def spoiled(chance: Random, place: Exports, case: Case) -> Choice:
    """Choose how a run goes wrong: a bad line, anything at all, or a file that is written anew."""
    kind = chance.choice(["line", "anything", "replaced", "late"])
    share = chance.choice([0.05, 0.2, 0.5])
    if kind == "line":
        return faults.sometimes(chance, share, PASSING)
    if kind == "anything":
        return faults.sometimes(chance, share, FAULTS)
    if kind == "late":
        return faults.sometimes(chance, share, [faults.late(0.05)])
    number = chance.randrange(1, 12)
    oblivious = chance.choice([None, faults.ignore_version(), faults.without("etag")])

    def choose(request: Request) -> Fault | None:
        if request.number == number:
            replace(place.folder / case.name, case.again)
        return oblivious

    return choose


def replace(path: Path, spec: ImageSpec) -> None:
    """Put another image in the place of a file, two seconds later by its date."""
    new = path.with_suffix(".new")
    spec.write(new)
    later = path.stat().st_mtime_ns + 2_000_000_000
    os.utime(new, ns=(later, later))
    new.replace(path)


def options(chance: Random) -> list[str]:
    """Choose how a disk is converted."""
    words = ["--timeout", "0.25", "--retries", str(chance.randrange(4))]
    words += ["--connections", str(chance.choice([1, 2, 8]))]
    words += ["--workers", str(chance.choice([1, 3]))]
    return words + chance.choice([[], ["--verify"], ["--resume"], ["--hash", "md5"]])


def test_no_output_is_ever_wrong(place: Exports) -> None:
    chance = Random("remote")
    found: Counter[int] = Counter()
    for number in range(RUNS):
        case = chance.choice(CASES)
        write_files(place.folder, case.files)
        place.server.forget()
        place.server.fault = spoiled(chance, place, case)
        outcome = place.run(*options(chance), place.url(case.name), place.target)
        found[outcome.exit_code] += 1
        context = f"run {number} of {case.name}: {outcome}"
        if outcome.exit_code == 0:
            # What was replaced before it was opened is another disk, and right as well.
            right = case.disk.expected_sha256(), case.other.expected_sha256()
            assert sha256_of(place.target) in right, context
            place.target.unlink()
            continue
        # A parent that the server denies is none.
        codes = (6, 8, 9) if len(case.files) > 1 else (8, 9)
        assert outcome.exit_code in codes, context
        assert outcome.err.startswith("vhdx2raw: "), context
        for name in names_in(place.outputs):
            assert "resume" in name, context
            (place.outputs / name).unlink()
    sys.stdout.write(f"{RUNS} conversions by exit code: {dict(sorted(found.items()))}\n")
    assert found[0]
    assert len(found) > 1
