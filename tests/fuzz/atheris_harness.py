"""The same images led by coverage: python -m tests.fuzz.atheris_harness [options of libFuzzer].

An input is one file of a base as its pages. The mutator spoils it as `mutations` does, or gives a
page to libFuzzer, and repairs the checksums; what reaches new lines is kept and spoiled further.
A finding is printed once, and its input written to the folder of `-artifact_prefix`.
"""

from __future__ import annotations

import hashlib
import random
import struct
import sys
import zlib
from pathlib import Path
from tempfile import mkdtemp

import atheris  # type: ignore[import-untyped]

# All that is imported in here has its lines watched, as far as it belongs to the package.
with atheris.instrument_imports(include=["vhdx2raw"]):
    from tests.fuzz.__main__ import IN_MEMORY, log
    from tests.fuzz.actions import (
        Action,
        Violation,
        open_alone,
        open_without_log,
        perform,
        read_in_every_way,
    )
    from tests.fuzz.bases import BASES, Base, base
    from tests.fuzz.limits import SECONDS
    from tests.fuzz.more_actions import MORE_ACTIONS
    from tests.fuzz.mutations import choose
    from tests.fuzz.repair import repair
    from tests.fuzz.sparse import PAGE, SparseFile

NAMES = tuple(BASES)
HEAD = struct.Struct("<BBQ")
PAGE_HEAD = struct.Struct("<Q")
MOST_PAGES = 120
MOST_BYTES = HEAD.size + MOST_PAGES * (PAGE_HEAD.size + PAGE)
STRICT = (
    Action(open_alone),
    Action(open_without_log),
    Action(read_in_every_way, seconds=3 * SECONDS),
)
"""Done with every input. The naive reader is too slow, and learns nothing from coverage."""


def encode(base_number: int, member_number: int, file: SparseFile) -> bytes:
    pages = [PAGE_HEAD.pack(n) + file.pages[n] for n in sorted(file.pages)]
    return HEAD.pack(base_number, member_number, file.size) + b"".join(pages)


def decode(data: bytes) -> tuple[Base, str, SparseFile]:
    """Give a base, the name of one of its files, and that file."""
    base_number, member_number, size = HEAD.unpack(data[: HEAD.size].ljust(HEAD.size, b"\0"))
    family = base(NAMES[base_number % len(NAMES)])
    name = list(family.members)[member_number % len(family.members)]
    file = SparseFile(size % (1 << 46))
    step = PAGE_HEAD.size + PAGE
    for at in range(HEAD.size, min(len(data), MOST_BYTES) - step + 1, step):
        (number,) = PAGE_HEAD.unpack_from(data, at)
        file.write(number * PAGE, data[at + PAGE_HEAD.size : at + step])
    return family, name, file


def mutate(data: bytes, most_bytes: int, seed: int) -> bytes:
    """Spoil an input a little further."""
    chance = random.Random(seed)
    family, name, file = decode(data)
    if not file.pages or chance.randrange(50) == 0:
        family = base(chance.choice(NAMES))
        name = chance.choice(list(family.members))
        file = family.members[name].file.copy()
    for _ in range(chance.choice((1, 1, 2, 3))):
        if not file.pages:
            break
        if chance.randrange(3):
            choose(chance)(chance, family.members[name], file)
        else:
            number = chance.choice(sorted(file.pages))
            file.write(number * PAGE, atheris.Mutate(file.pages[number], PAGE))
    if chance.randrange(10):
        repair(family.members[name], file)
    numbers = NAMES.index(family.name), list(family.members).index(name)
    spoiled = encode(*numbers, file)
    return spoiled if len(spoiled) <= min(most_bytes, MOST_BYTES) else data


class Harness:
    """Tries inputs in one folder."""

    def __init__(self, folder: Path, prefix: str) -> None:
        self.folder = folder
        self.prefix = prefix
        self.found: set[tuple[str, str, str]] = set()

    def try_input(self, data: bytes) -> None:
        family, spoiled, file = decode(data)
        for name, member in family.members.items():
            (file if name == spoiled else member.file).store(self.folder / name)
        path = self.folder / next(iter(family.members))
        # One of the others, the same one whenever this input is tried.
        also = MORE_ACTIONS[zlib.crc32(data) % len(MORE_ACTIONS)]
        for action in (*STRICT, also):
            outcome = perform(action, path)
            if isinstance(outcome, Violation):
                self._report(outcome, data, f"{spoiled} of {family.name}")
                return

    def _report(self, violation: Violation, data: bytes, what: str) -> None:
        key = (violation.action, violation.kind, violation.place)
        if key in self.found:
            return
        self.found.add(key)
        digest = hashlib.sha256(data).hexdigest()
        path = Path(f"{self.prefix}found-{digest[:16]}")
        path.write_bytes(data)
        log(f"FOUND {violation.kind} in {violation.action} at {violation.place or 'no line'}")
        log(f"{what}, {path}\n{violation.details}")


def main() -> None:
    prefixes = [word.partition("=")[2] for word in sys.argv if word.startswith("-artifact_prefix=")]
    folder = Path(
        mkdtemp(prefix="vhdx2raw-atheris-", dir=IN_MEMORY if IN_MEMORY.is_dir() else None)
    )
    harness = Harness(folder, (prefixes or [""])[0])
    # Our own limits use the timer that libFuzzer would use for its time-out.
    options = [*sys.argv, "-timeout=0", f"-max_len={MOST_BYTES}"]
    atheris.Setup(options, harness.try_input, custom_mutator=mutate)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
