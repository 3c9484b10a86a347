"""A client of network block devices, for the Python that libnbd was built for.

    nbd_reader.py URI PLAN THREADS [--endless]

PLAN is JSON, a list of (offset, length). Each thread has a connection of its own and reads all of
it, beginning somewhere else; the SHA-256 of every piece is written to stdout as JSON, thread by
thread. With --endless they read until a read fails, and a line is printed when each has begun.
"""

import hashlib
import json
import sys
from concurrent.futures import ThreadPoolExecutor
from itertools import cycle

import nbd  # type: ignore[import-not-found]  # of that Python alone


def connect(uri: str) -> "nbd.NBD":
    handle = nbd.NBD()
    handle.connect_uri(uri)
    return handle


def read_all(uri: str, plan: list[tuple[int, int]], first: int) -> list[str]:
    """Give the digests in the order of the plan."""
    handle = connect(uri)
    digests = {}
    for place in [*range(first, len(plan)), *range(first)]:
        offset, length = plan[place]
        digests[place] = hashlib.sha256(handle.pread(length, offset)).hexdigest()
    return [digests[place] for place in range(len(plan))]


def read_on(uri: str, plan: list[tuple[int, int]], first: int) -> str:
    """Read until that fails; give the error."""
    handle = connect(uri)
    places = cycle([*plan[first:], *plan[:first]])
    try:
        for count, (offset, length) in enumerate(places):
            handle.pread(length, offset)
            if count == 0:
                sys.stdout.write("begun\n")
                sys.stdout.flush()
    except nbd.Error as error:
        return str(error.errno)
    return ""


def main(uri: str, plan_text: str, threads: str, *mode: str) -> None:
    plan = json.loads(plan_text)
    count = int(threads)
    with ThreadPoolExecutor(count) as pool:
        starts = [len(plan) * number // count for number in range(count)]
        read = read_on if mode else read_all
        results = list(pool.map(lambda first: read(uri, plan, first), starts))
    sys.stdout.write(json.dumps(results) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
