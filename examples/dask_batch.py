"""Convert the disks of a list on a Dask cluster.

    vhdx2raw batch --plan /srv/exports --output-dir /srv/raw > disks.jsonl
    python dask_batch.py disks.jsonl tcp://scheduler:8786 > results.jsonl

Every machine needs vhdx2raw and the same folders. Without the address of a scheduler, this machine
is the cluster. Dask gives the disks of a worker that died to another one. The same command may be
run again after any failure: what is there already is compared and not made again. Options of single
disks, which a list may have, are for `vhdx2raw batch` alone.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from dask.distributed import Client, as_completed

import vhdx2raw


def convert(task: dict[str, Any]) -> vhdx2raw.ConversionResult | None:
    """Convert a disk, on a worker; what this returns or raises comes back to the client.

    Returns None if the raw image is there already, as from a worker that died before it said so.
    """
    Path(task["destination"]).parent.mkdir(parents=True, exist_ok=True)
    with vhdx2raw.open(task["source"], parents=task["parents"]) as disk:
        try:
            return vhdx2raw.convert(disk, task["destination"], workers=1, look_for_newer=False)
        except vhdx2raw.OutputError:
            if not Path(task["destination"]).is_file():
                raise
            with vhdx2raw.RawFile(task["destination"]) as raw:
                found = vhdx2raw.compare(disk, raw)
            if not (found.same_contents and found.same_size):
                raise
            return None


def main(name: str, scheduler: str | None = None) -> int:
    """Convert the disks of a list, print a line about each, and return the exit code."""
    tasks = [json.loads(line) for line in Path(name).read_text(encoding="utf-8").splitlines()]
    if any("options" in task for task in tasks):
        sys.exit(f"{name}: has options, which only `vhdx2raw batch` knows")
    failed = 0
    with Client(scheduler, threads_per_worker=1) as client:
        futures = {client.submit(convert, task, pure=False): task for task in tasks}
        for future in as_completed(futures):
            error = future.exception()
            failed += error is not None
            result = future.result() if error is None else None
            facts = {
                "source": futures[future]["source"],
                "destination": futures[future]["destination"],
                "error": None if error is None else f"{type(error).__name__}: {error}",
                "written-size": result.written_bytes if result else 0,
            }
            print(json.dumps(facts), flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
