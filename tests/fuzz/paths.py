"""Every path of the tool, for a chain that is valid: each must give the bytes of its description.

A path is a function that takes a `Place`. To have one more tried with every chain, write a function
and add it to `PATHS`.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import redirect_stderr, redirect_stdout
from io import TextIOWrapper
from itertools import pairwise
from operator import ne
from pathlib import Path
from typing import Any

import pytest

import vhdx2raw
from tests.fuzz.actions import demand, ranges_of, read_extents
from tests.support.builder import KIB, MIB
from tests.support.files import open_files
from tests.support.random_chains import RandomChain, write_chain
from vhdx2raw.cli import main
from vhdx2raw.output.resumable_file import ResumableFileSink
from vhdx2raw.output.sparse_file import SparseFileSink

Options = dict[str, Any]
FILE_OPTIONS: Sequence[Options] = (
    {"sparse_size": 0},
    {"sparse_size": 512},
    {"sparse_size": MIB, "sync": False},
    {"workers": 1},
    {"workers": 4, "clone": False},
    {"clone": False, "sync": False},
    {"verify": True},
    {"hash_algorithm": ("sha256", "md5")},
    {"sparse_size": 0, "verify": True, "workers": 3},
    {"holes": "source"},
    {"holes": "source", "clone": False, "verify": True, "workers": 1},
    {"allow_changed": True, "force": True},
)
COMMAND_OPTIONS = (
    ("-S", "0"),
    ("-S", "1M"),
    ("--no-sync",),
    ("--workers", "1"),
    ("--no-clone",),
    ("--hash", "sha256"),
    ("--salvage",),
    ("--progress", "json"),
)
"""Any two of them can be given together; for a stream too."""
UPDATE_OPTIONS: Sequence[Options] = (
    {},
    {"verify": True, "hash_algorithm": "sha256"},
    {"sparse_size": 0, "workers": 1},
)
RESUME_OPTIONS: Sequence[Options] = (
    {},
    {"verify": True},
    {"sparse_size": 0},
    {"hash_algorithm": "sha256"},
)


class Place:
    """A chain that was written to an empty folder, and what its disk holds.

    Attributes:
        chance: What chooses among options, the same whenever this chain is tried.
        top: The path of the child.
        expected: The bytes of the disk, by the description.
        image: Where a raw image may be made; what is there is removed by `Place.clear`.
    """

    def __init__(self, folder: Path, chain: RandomChain) -> None:
        self.folder, self.chain = folder, chain
        self.chance = random.Random()
        self.paths = write_chain(chain, folder)
        self.top = self.paths[0]
        self.expected = chain.specs[0].expected_disk(0, chain.specs[0].virtual_disk_size)
        self.sha256 = hashlib.sha256(self.expected).hexdigest()
        self.image = folder / "disk.img"
        self._before = self._times()

    def _times(self) -> list[tuple[int, int]]:
        return [(path.stat().st_size, path.stat().st_mtime_ns) for path in self.paths]

    def run(self, *arguments: str | Path, code: int = 0) -> str:
        """Run the command line, which has to end with `code`; return what it printed."""
        with (
            self._stream("out") as out,
            self._stream("err") as err,
            redirect_stdout(out),
            redirect_stderr(err),
        ):
            got = main([str(argument) for argument in arguments])
        errors = (self.folder / "err").read_text(encoding="utf-8", errors="replace")
        demand(got == code, f"{arguments} ends with {got} and not {code}: {errors}")
        with (self.folder / "out").open(encoding="utf-8", errors="replace") as file:
            return file.read(64 * MIB)

    def _stream(self, name: str) -> TextIOWrapper:
        return TextIOWrapper((self.folder / name).open("wb"), encoding="utf-8")

    def some_options(self) -> list[str]:
        return [word for words in self.chance.sample(COMMAND_OPTIONS, 2) for word in words]

    def demand_right(self, path: Path, words: object) -> None:
        demand(path.read_bytes() == self.expected, f"other bytes by {words}")

    def spoil(self, data: bytes) -> bytearray:
        """Return the data with some of it changed, at borders of what is held against it too."""
        spoiled = bytearray(data)
        for _ in range(self.chance.randrange(1, 6)):
            start = self.chance.choice((0, self.chance.randrange(len(data)), len(data) - 1))
            length = self.chance.choice((1, 512, 4 * KIB, 70 * KIB, MIB))
            spoiled[start : start + length] = self.chance.choice((b"\0", b"\xee")) * len(
                spoiled[start : start + length]
            )
        return spoiled

    def clear(self) -> None:
        """Remove what a path has made, and demand that the files of the chain are as they were."""
        for path in self.folder.iterdir():
            if path not in self.paths:
                path.unlink()
        demand(self._times() == self._before, "a source was written to")

    def demand_only(self, *names: str) -> None:
        """Demand that nothing else lies in the folder besides the chain and what was printed."""
        known = {*names, "out", "err", *(path.name for path in self.paths)}
        others = sorted({path.name for path in self.folder.iterdir()} - known)
        demand(not others, f"left behind: {others}")


def read_by_offset(place: Place) -> None:
    """`pread`, `read` after `seek`, and the extents, at the borders of everything."""
    with vhdx2raw.open(place.top) as disk:
        demand(disk.pread(disk.size, 0) == place.expected, "the whole disk")
        extents = list(disk.extents())
        demand(read_extents(extents, 0, disk.size) == place.expected, "the extents")
        for start, length in ranges_of(disk, extents):
            right = place.expected[start : start + length]
            demand(disk.pread(length, start) == right, f"pread of {length} from {start:#x} on")
            disk.seek(start)
            demand(disk.read(length) == right, f"read of {length} from {start:#x} on")
            part = list(disk.extents(start, length))
            demand(read_extents(part, start, length) == right, f"extents of {start:#x}")


def read_by_map(place: Place) -> None:
    """Read the files oneself where the map says that their bytes stand."""
    done = 0
    for entry in json.loads(place.run("map", "--json", place.top)):
        start, length = entry["start"], entry["length"]
        demand(start == done and length > 0, f"the map has a gap at {done:#x}")
        done += length
        right = place.expected[start:done]
        if "offset" in entry:
            with Path(entry["filename"]).open("rb") as file:
                file.seek(entry["offset"])
                demand(file.read(length) == right, f"the map is wrong at {start:#x}")
        elif entry["data"]:
            depth = entry["depth"]
            demand(place.chain.dirty[depth], f"data in no file and no log at {start:#x}")
        else:
            demand(entry["zero"] and not any(right), f"no zeros at {start:#x}")
    demand(done == len(place.expected), "the map ends before the disk")


def convert_to_file(place: Place) -> None:
    """Without options, with some of those that change the way, and by the command line."""
    for options in ({}, *place.chance.sample(FILE_OPTIONS, 2)):
        place.image.unlink(missing_ok=True)
        if options.get("force"):
            place.image.write_bytes(b"old" * MIB)
        result = vhdx2raw.convert(place.top, place.image, **options)
        place.demand_right(place.image, options)
        place.demand_only("disk.img")
        right_digest = result.digest in (None, place.sha256)
        demand(right_digest, f"another digest by {options}")
    words = place.some_options()
    place.run("convert", "--force", *words, place.top, place.image)
    place.demand_right(place.image, words)
    place.demand_only("disk.img")


def convert_to_stream(place: Place) -> None:
    words = place.chance.choice(((), place.some_options()))
    place.run("convert", *words, place.top, "-")
    place.demand_right(place.folder / "out", ("-", *words))
    place.demand_only()


def convert_to_nothing(place: Place) -> None:
    words = place.some_options()
    summary = place.run("convert", "--json", "--hash", "sha256", *words, place.top, "null:")
    demand(place.sha256 in summary, "another digest by null:")
    place.demand_only()


def convert_batch(place: Place) -> None:
    """All files of the chain in one run."""
    words = ("batch", "--all", "--jobs", "2", "--output-dir", place.folder)
    place.run(*words, *place.paths)
    for path, spec in zip(place.paths, place.chain.specs, strict=True):
        right = spec.expected_disk(0, spec.virtual_disk_size)
        demand(path.with_suffix(".img").read_bytes() == right, f"other bytes of {path.name}")


def convert_from_object(place: Place) -> None:
    """Give the child as an open file, if it needs no parent."""
    if len(place.paths) == 1:
        with place.top.open("rb") as file:
            vhdx2raw.convert(file, place.image)
        place.demand_right(place.image, "an open file")


def convert_and_resume(place: Place) -> None:
    """Let writes fail at some places, and go on each time."""
    options = place.chance.choice(RESUME_OPTIONS)
    real = SparseFileSink.write
    for _ in range(place.chance.randrange(1, 4)):
        limit = place.chance.randrange(len(place.expected))

        def write(sink: SparseFileSink, start: int, data: memoryview, limit: int = limit) -> None:
            if start + len(data) > limit:
                raise OSError(5, "the share is lost")
            real(sink, start, data)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(ResumableFileSink, "write", write)
            try:
                vhdx2raw.convert(place.top, place.image, resume=True, **options)
            except OSError:
                demand(not place.image.exists(), "an output of a failed run")
            else:
                break  # there was nothing to write behind that place
    else:
        result = vhdx2raw.convert(place.top, place.image, resume=True, **options)
        demand(not result.begun_anew, f"begun anew: {result.begun_anew}")
        demand(options.get("hash_algorithm") is None or result.digest == place.sha256, "digest")
    place.demand_right(place.image, ("resume", options))
    place.demand_only("disk.img")


def convert_and_update(place: Place) -> None:
    """Bring an image up to date that differs, or is shorter."""
    old = place.spoil(place.expected)
    if place.chance.randrange(3) == 0:
        del old[place.chance.randrange(len(old)) :]
    place.image.write_bytes(old)
    options = place.chance.choice(UPDATE_OPTIONS)
    vhdx2raw.convert(place.top, place.image, update=True, force=True, **options)
    place.demand_right(place.image, ("update", options))
    place.demand_only("disk.img")


def hash_and_compare(place: Place) -> None:
    demand(place.run("hash", place.top).split()[0] == place.sha256, "another digest")
    place.image.write_bytes(place.expected)
    place.run("compare", "--strict", place.top, place.image)
    other = place.spoil(place.expected)
    place.image.write_bytes(other)
    wrong = list(_differences(other, place.expected))
    facts = json.loads(place.run("compare", "--json", place.top, place.image, code=bool(wrong)))
    demand(facts["different-bytes"] == len(wrong), f"{facts} instead of {len(wrong)}")
    demand(facts["first-difference"] == (wrong[0] if wrong else None), f"{facts}, {wrong[:1]}")


def _differences(one: bytes | bytearray, other: bytes) -> Iterator[int]:
    for page in range(0, len(one), 4 * KIB):
        piece, right = one[page : page + 4 * KIB], other[page : page + 4 * KIB]
        if piece != right:
            yield from (page + at for at, differs in enumerate(map(ne, piece, right)) if differs)


def convert_and_apply(place: Place) -> None:
    """Convert some parent, and apply what lies above, in one step or several."""
    specs = place.chain.specs
    steps = [place.chance.randrange(len(specs))]
    while steps[-1]:
        size = specs[steps[-1]].virtual_disk_size
        following = [n for n in range(steps[-1]) if specs[n].virtual_disk_size >= size]
        if not following:
            return  # a smaller checkpoint has to be converted anew
        steps.append(place.chance.choice(following))
    place.run("convert", "--save-state", place.paths[steps[0]], place.image)
    away = place.folder / "away"
    for before, step in pairwise(steps):
        place.paths[before].rename(away)  # what the image holds need not be there
        options = place.chance.choice(((), ("--verify",)))
        place.run("apply", *options, place.paths[step], place.image)
        away.rename(place.paths[before])
    place.demand_right(place.image, ("apply", steps))
    place.demand_only("disk.img", "disk.img.state.json")


def check_and_look(place: Place) -> None:
    place.run(place.chance.choice(("check", "info")), *place.paths)


PATHS: Sequence[Callable[[Place], None]] = (
    read_by_offset,
    read_by_map,
    convert_to_file,
    convert_to_stream,
    convert_to_nothing,
    convert_batch,
    convert_from_object,
    convert_and_resume,
    convert_and_update,
    hash_and_compare,
    convert_and_apply,
    check_and_look,
)


def try_chain(folder: Path, chain: RandomChain, seed: int) -> None:
    """Try every path with one chain, in an empty folder.

    Raises:
        DisagreementError: One of them gave something else than the description.
    """
    before = open_files()
    place = Place(folder, chain)
    written = [path.read_bytes() for path in place.paths]
    for path in PATHS:
        place.chance.seed(f"{seed}:{path.__name__}")
        try:
            path(place)
        except BaseException as error:
            error.args = (f"{path.__name__}: {error}",)
            raise
        place.clear()
    demand(written == [path.read_bytes() for path in place.paths], "a source was changed")
    left = open_files() - before
    demand(not left, f"{len(left)} files are still open")
