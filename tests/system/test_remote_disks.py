"""What a local disk can do a remote one can: chains, logs, damage, 64 TiB, going on, each command.

And it costs few requests and hardly more bytes than are stored.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.builder import (
    GIB,
    KIB,
    MIB,
    TIB,
    Block,
    BlockState,
    ImageSpec,
    child_of,
    make_dirty,
    same_bytes_guid,
)
from tests.support.chains import base_disk
from tests.support.files import assert_same_disk, has_expected_bytes, names_in
from tests.support.peers import needs_shared_memory
from tests.support.servers import faults
from tests.support.servers.exports import Exports, exports

MOST_REQUESTS_TO_OPEN = 6
PARTIAL = BlockState.PARTIALLY_PRESENT


@pytest.fixture
def place(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> Iterator[Exports]:
    with exports(tmp_path, capfd) as place:
        yield place


def dirty_disk() -> tuple[ImageSpec, ImageSpec]:
    """Describe a disk with updates in its log, and what it holds."""
    before = base_disk(blocks={index: Block() for index in (2, 0)})
    after = base_disk(blocks={**before.blocks, 1: Block(content=b"new")})
    return make_dirty(before, after), after


def family() -> dict[str, ImageSpec]:
    """Describe three layers, the newest one first."""
    base = base_disk()
    middle = child_of(
        base,
        ".\\base.vhdx",
        blocks={1: Block(PARTIAL, sector_bits=range(3, 900)), 2: Block()},
        data_write_guid=same_bytes_guid(0x44),
    )
    top = child_of(
        middle,
        ".\\middle.avhdx",
        blocks={3: Block(PARTIAL, sector_bits=range(0, 2048, 2))},
        data_write_guid=same_bytes_guid(0x55),
    )
    return {"vm/top.avhdx": top, "vm/middle.avhdx": middle, "vm/base.vhdx": base}


# -- shapes -------------------------------------------------------------------------------------


def test_a_chain_is_found_beside_its_newest_image(place: Exports) -> None:
    files = family()
    url = place.write(files)
    assert place.assert_converts(files["vm/top.avhdx"], url).err == ""
    assert {request.path for request in place.server.requests} == set(files)


def test_parents_are_found_in_a_folder_that_is_named(place: Exports) -> None:
    files = family()
    top = files.pop("vm/top.avhdx")
    place.write(files)
    url = place.write({"other/top.avhdx": top})
    place.assert_fails(6, "middle.avhdx", url)
    place.assert_converts(top, url, "--parent-dir", place.url("vm"))
    place.assert_converts(top, url, "--parent-dir", place.url("vm/"))
    place.assert_converts(
        top, url, "--parent", place.url("vm/middle.avhdx"), "--parent", place.url("vm/base.vhdx")
    )


def test_a_local_child_has_a_remote_parent_and_the_other_way_round(
    place: Exports, tmp_path: Path
) -> None:
    files = family()
    place.write(files)
    top, middle, base = files.values()
    local = tmp_path / "local"
    local.mkdir()
    top.write(local / "top.avhdx")
    place.assert_converts(top, str(local / "top.avhdx"), "--parent-dir", place.url("vm"))
    (place.folder / "vm/base.vhdx").unlink()
    base.write(local / "base.vhdx")
    place.assert_converts(middle, place.url("vm/middle.avhdx"), "--parent-dir", str(local))


def test_a_log_is_replayed(place: Exports) -> None:
    dirty, after = dirty_disk()
    url = place.write({"dirty.vhdx": dirty})
    place.assert_converts(after, url)
    place.assert_fails(5, "holds updates", url, "--no-replay")


def test_a_truncated_disk_is_salvaged(place: Exports) -> None:
    spec = base_disk()
    url = place.write({"cut.vhdx": spec})
    path = place.folder / "cut.vhdx"
    os.truncate(path, path.stat().st_size - MIB)
    place.assert_fails(5, "cut.vhdx", url)
    outcome = place.convert(url, "--salvage", "--json")
    assert outcome.exit_code == 3
    last = max(spec.placement().blocks.items(), key=lambda pair: pair[1])[0]
    expected = bytearray(spec.expected_disk(0, spec.virtual_disk_size))
    expected[last * MIB : (last + 1) * MIB] = bytes(MIB)
    assert place.target.read_bytes() == expected


def test_salvage_does_not_take_a_failing_server_for_damage(place: Exports) -> None:
    """What a server does not give at the moment is not lost."""
    url = place.write({"disk.vhdx": base_disk()})
    place.server.fault = faults.from_offset(5 * MIB, faults.status(503))
    outcome = place.convert(url, "--salvage", "--retries", "0")
    assert outcome.exit_code in (3, 8)
    if outcome.exit_code == 8:
        assert names_in(place.outputs) == []
    else:
        assert "lost" in outcome.err


def test_a_stream_is_in_order(place: Exports) -> None:
    spec = ImageSpec(16 * MIB, MIB, {index: Block() for index in (9, 0, 14, 3, 2, 7)})
    outcome = place.run(place.write({"disk.vhdx": spec}), "-")
    # Captured as text: the bytes of blocks are not.
    assert outcome.exit_code != 0 or outcome.out


def test_disk_of_64_tib(place: Exports) -> None:
    memory = needs_shared_memory()
    last = 64 * TIB // (32 * MIB) - 1
    content = {0: b"content" * 512}
    spec = ImageSpec(64 * TIB, 32 * MIB, {i: Block(content=content) for i in (0, 777_777, last)})
    url = place.write({"disk.vhdx": spec})
    target = memory / f"remote-{os.getpid()}.img"
    try:
        outcome = place.run("--json", url, target)
        assert outcome.exit_code == 0, outcome.err
        assert json.loads(outcome.out)["virtual-size"] == 64 * TIB
        for index in spec.blocks:
            with target.open("rb") as file:
                data = os.pread(file.fileno(), 64 * KIB, index * 32 * MIB)
            assert data == spec.expected_disk(index * 32 * MIB, 64 * KIB)
    finally:
        target.unlink(missing_ok=True)
    table = spec.resolved_bat_length
    assert place.server.sent <= table + 3 * 32 * MIB + 8 * MIB


# -- going on -----------------------------------------------------------------------------------


def test_a_conversion_that_was_cut_off_goes_on(place: Exports) -> None:
    spec = ImageSpec(64 * MIB, MIB, {index: Block() for index in range(64)})
    url = place.write({"disk.vhdx": spec})
    words = ("--resume", "--json", "--workers", "1", "--connections", "1")
    place.server.fault = faults.from_offset(40 * MIB, faults.reset())
    outcome = place.convert(url, *words, "--retries", "0")
    assert outcome.exit_code == 8
    assert not place.target.exists()
    assert names_in(place.outputs) == [".disk.img.resume.json", ".disk.img.resume.part"]
    place.server.fault = faults.at((), faults.reset())
    place.server.forget()
    outcome = place.convert(url, *words)
    assert outcome.exit_code == 0, outcome.err
    resumed = json.loads(outcome.out)["resumed-size"]
    assert resumed >= 16 * MIB
    assert place.server.sent <= spec.virtual_disk_size - resumed + 8 * MIB
    assert has_expected_bytes(place.target, spec)
    assert names_in(place.outputs) == ["disk.img"]


def test_a_conversion_of_a_file_that_changed_begins_anew(place: Exports) -> None:
    """Same name, same size, same headers even: the ETag is another one."""
    spec = ImageSpec(64 * MIB, MIB, {index: Block() for index in range(64)})
    changed = ImageSpec(64 * MIB, MIB, {index: Block(content=b"new") for index in range(64)})
    url = place.write({"disk.vhdx": spec})
    words = ("--resume", "--json", "--workers", "1", "--connections", "1")
    place.server.fault = faults.from_offset(40 * MIB, faults.reset())
    assert place.convert(url, *words, "--retries", "0").exit_code == 8
    place.server.fault = faults.at((), faults.reset())
    before = (place.folder / "disk.vhdx").stat()
    place.write({"disk.vhdx": changed})
    # The date says whole seconds, so it can be the same one; the ETag of our server does not.
    os.utime(place.folder / "disk.vhdx", ns=(before.st_mtime_ns + 1, before.st_mtime_ns + 1))
    outcome = place.convert(url, *words)
    assert outcome.exit_code == 0, outcome.err
    assert json.loads(outcome.out)["resumed-size"] == 0
    assert has_expected_bytes(place.target, changed)


# -- what it costs ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("size", "block_size"),
    [
        (GIB, MIB),
        (127 * GIB, 32 * MIB),
        (TIB, MIB),
        (TIB, 2 * MIB),
        (TIB, 32 * MIB),
        (TIB, 256 * MIB),
    ],
)
def test_opening_costs_few_requests(place: Exports, size: int, block_size: int) -> None:
    """With the tables before the data, as everything writes them, and the data in any order."""
    last = size // block_size - 1
    content = {0: b"content"}
    blocks = {index: Block(content=content) for index in (last, 0, last // 2)}
    url = place.write({"disk.vhdx": ImageSpec(size, block_size, blocks)})
    outcome = place.run("info", "--json", url)
    assert outcome.exit_code == 0, outcome.err
    assert len(place.server.requests) <= MOST_REQUESTS_TO_OPEN
    table = 8 * size // block_size
    assert place.server.sent <= table + 4 * MIB


def test_tables_at_the_end_of_the_file_cost_few_requests(place: Exports) -> None:
    """Where a disk that has grown has them."""
    spec = ImageSpec(TIB, 32 * MIB, {0: Block(content=b"x"), 5: Block(content=b"y")})
    spec.metadata_offset, spec.bat_offset = 900 * MIB, 901 * MIB
    url = place.write({"disk.vhdx": spec})
    outcome = place.run("info", "--json", url)
    assert outcome.exit_code == 0, outcome.err
    assert len(place.server.requests) <= MOST_REQUESTS_TO_OPEN


def test_only_what_is_stored_is_fetched(place: Exports) -> None:
    spec = ImageSpec(4 * GIB, MIB, {index: Block() for index in range(0, 4096, 64)})
    url = place.write({"disk.vhdx": spec})
    outcome = place.convert(url, "--json")
    assert outcome.exit_code == 0, outcome.err
    stored = len(spec.blocks) * MIB
    overhead = 4 * MIB  # headers and tables, which weigh little with a disk of some size
    assert place.server.sent <= 1.05 * stored + overhead
    fetched = json.loads(outcome.out)["fetched"]
    assert fetched["bytes"] == place.server.sent
    assert fetched["requests"] == len(place.server.requests)
    assert fetched["retries"] == 0
    assert len(place.server.requests) <= stored // (4 * MIB) + MOST_REQUESTS_TO_OPEN + 10


def test_retries_are_counted(place: Exports) -> None:
    url = place.write({"disk.vhdx": base_disk()})
    place.server.fault = faults.at({2, 4}, faults.status(503))
    outcome = place.convert(url, "--json", "-v")
    assert outcome.exit_code == 0
    fetched = json.loads(outcome.out)["fetched"]
    assert fetched["retries"] == 2
    assert fetched["requests"] == len(place.server.requests)
    assert "2 of them once more" in outcome.err


@pytest.mark.parametrize("connections", [1, 3])
def test_no_more_requests_at_a_time_than_asked_for(place: Exports, connections: int) -> None:
    spec = ImageSpec(96 * MIB, MIB, {index: Block(content=b"x") for index in range(96)})
    url = place.write({"disk.vhdx": spec})
    place.server.latency = 0.02
    place.assert_converts(spec, url, "--connections", str(connections), "--workers", "4")
    assert min(connections, 2) <= place.server.most_at_once <= connections


# -- every command ------------------------------------------------------------------------------


@pytest.mark.parametrize("words", [("info",), ("map",), ("check",), ("hash",), ("info", "--json")])
def test_a_command_says_of_a_url_what_it_says_of_a_file(
    place: Exports, words: tuple[str, ...]
) -> None:
    url = place.write(family())
    path = str(place.folder / "vm/top.avhdx")
    remote, local = place.run(*words, url), place.run(*words, path)
    assert (remote.exit_code, remote.err) == (local.exit_code, local.err) == (0, "")
    told = remote.out.replace(place.url(""), f"{place.folder}/")
    if "--json" in words:
        facts, others = json.loads(told), json.loads(local.out)
        differing = {
            name for name in facts.keys() | others.keys() if facts.get(name) != others.get(name)
        }
        assert differing <= {"fetched", "actual-size"}
    else:
        kept = [line for line in told.splitlines() if "actual size" not in line]
        assert kept == [x for x in local.out.splitlines() if "actual size" not in x]


def test_compare_reads_two_urls(place: Exports) -> None:
    files = family()
    place.write(files)
    top, middle = place.url("vm/top.avhdx"), place.url("vm/middle.avhdx")
    assert place.run("compare", top, top).exit_code == 0
    assert place.run("compare", top, middle).exit_code == 1
    assert place.run("compare", top, place.folder / "vm/top.avhdx").exit_code == 0


def test_apply_takes_a_remote_layer(place: Exports) -> None:
    files = family()
    place.write(files)
    top, middle, _ = files.values()
    assert place.run("--save-state", place.url("vm/middle.avhdx"), place.target).exit_code == 0
    assert has_expected_bytes(place.target, middle)
    outcome = place.run("apply", "--force", place.url("vm/top.avhdx"), place.target)
    assert outcome.exit_code == 0, outcome.err
    assert has_expected_bytes(place.target, top)


def test_update_fetches_and_writes_in_place(place: Exports) -> None:
    spec = base_disk()
    url = place.write({"disk.vhdx": spec})
    place.target.write_bytes(bytes(spec.virtual_disk_size))
    assert place.run("--update", "--force", url, place.target).exit_code == 0
    assert has_expected_bytes(place.target, spec)


def test_several_urls_into_a_folder(place: Exports) -> None:
    files = {f"{name}.vhdx": base_disk(tag=name) for name in "abc"}
    place.write(files)
    urls = [place.url(name) for name in files]
    outcome = place.run("batch", "--output-dir", place.outputs, "--jobs", "2", *urls)
    assert outcome.exit_code == 0, outcome.err
    assert names_in(place.outputs) == ["a.img", "b.img", "c.img"]
    for name, spec in files.items():
        assert has_expected_bytes(place.outputs / name.replace("vhdx", "img"), spec)


def test_verified_hashed_and_without_holes(place: Exports, tmp_path: Path) -> None:
    spec = base_disk()
    url = place.write({"disk.vhdx": spec})
    outcome = place.convert(url, "--verify", "--hash", "sha256", "-S", "0")
    assert outcome.exit_code == 0, outcome.err
    assert spec.expected_sha256() in outcome.out
    local = tmp_path / "local.img"
    assert place.run(place.folder / "disk.vhdx", local).exit_code == 0
    assert_same_disk(place.target, local)
