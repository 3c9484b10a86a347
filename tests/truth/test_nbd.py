"""What other programs read of a disk that is served: the bytes and the map of its description."""

import hashlib
import json
import random
import subprocess
from pathlib import Path

import pytest

from benchmarks.peer_cases import DISK
from tests.support.builder import (
    MIB,
    Block,
    ImageSpec,
    golden_g4,
    make_dirty,
)
from tests.support.chains import table_7_4
from tests.support.cli import Outcome, run, run_program
from tests.support.corpus import CORPUS
from tests.support.files import has_expected_bytes, sha256_of, write_files
from tests.support.nbd import (
    map_of,
    needs_reader,
    needs_server,
    reader_words,
    server_of,
    stored_map,
)
from tests.support.partitions import PLACES
from tests.support.peers import needs_program, run_peer
from tests.support.real_images import REAL_IMAGES, needs_real_images, unpack_real_image
from tests.support.salvage import with_lost

Capture = pytest.CaptureFixture[str]
SECTOR = 512


def serve(capfd: Capture, image: Path, command: str, *options: str) -> Outcome:
    """Run a command of the shell beside the server of an image, in its folder."""
    needs_server()
    return run(capfd, "serve", image, *options, "--run", f"cd '{image.parent}' || exit\n{command}")


@pytest.mark.parametrize("name", CORPUS)
def test_every_image_is_copied_and_mapped(capfd: Capture, tmp_path: Path, name: str) -> None:
    for program in ("nbdcopy", "nbdinfo"):
        needs_program(program)
    spec = CORPUS[name](tmp_path)
    before = {path: sha256_of(path) for path in tmp_path.iterdir()}
    command = 'nbdcopy "$uri" out.img && nbdinfo --map --json "$uri"'
    outcome = serve(capfd, tmp_path / DISK, command, "-q")
    assert (outcome.exit_code, outcome.err) == (0, "")
    assert has_expected_bytes(tmp_path / "out.img", spec)
    assert map_of(outcome.out) == stored_map(spec)
    assert {path: sha256_of(path) for path in before} == before


def test_a_map_of_several_chunks_is_right(capfd: Capture, tmp_path: Path) -> None:
    """5 GiB: more than a client asks for at once."""
    needs_program("nbdinfo")
    spec = golden_g4()
    spec.write(tmp_path / DISK)
    outcome = serve(capfd, tmp_path / DISK, 'nbdinfo --map --json "$uri"')
    assert map_of(outcome.out) == stored_map(spec)


@pytest.mark.parametrize("name", ["three layers", "updates in the log, source unchanged"])
def test_qemu_img_makes_a_qcow2_of_what_is_served(
    capfd: Capture, tmp_path: Path, name: str
) -> None:
    needs_program("qemu-img")
    spec = CORPUS[name](tmp_path)
    command = 'qemu-img convert -f raw -O qcow2 "$uri" out.qcow2'
    outcome = serve(capfd, tmp_path / DISK, command)
    assert (outcome.exit_code, outcome.err) == (0, "")
    run_peer("qemu-img", "check", "-q", tmp_path / "out.qcow2")
    run_peer("qemu-img", "convert", tmp_path / "out.qcow2", tmp_path / "out.img")
    assert has_expected_bytes(tmp_path / "out.img", spec)


def test_qemu_io_reads_what_is_served_and_cannot_write(capfd: Capture, tmp_path: Path) -> None:
    needs_program("qemu-io")
    path = write_files(tmp_path, {DISK: ImageSpec(MIB + 512, MIB, {0: Block(content=0xA5)})})
    commands = f"-c 'read -P 0xa5 0 {MIB}' -c 'read -P 0 {MIB} 512'"
    outcome = serve(capfd, path, f'qemu-io -r -f raw {commands} "$uri"')
    assert outcome.exit_code == 0
    assert outcome.out.count("read ") == 2
    assert "Pattern verification failed" not in outcome.out
    outcome = serve(capfd, path, "qemu-io -f raw -c 'write 0 512' \"$uri\"")
    assert outcome.exit_code != 0
    assert "Permission denied" in outcome.err


def test_nbdfuse_shows_what_is_served(capfd: Capture, tmp_path: Path) -> None:
    needs_program("nbdfuse")
    if not Path("/dev/fuse").exists():
        pytest.skip("/dev/fuse is not here")
    spec = CORPUS["three layers"](tmp_path)
    (tmp_path / "mnt").mkdir()
    command = """
nbdfuse --pidfile ready mnt/disk.img "$uri" &
for _ in $(seq 100); do [ -e ready ] || sleep 0.1; done
cp mnt/disk.img out.img; code=$?
fusermount3 -u mnt && wait; exit $code
"""
    outcome = serve(capfd, tmp_path / DISK, command)
    assert (outcome.exit_code, outcome.err) == (0, "")
    assert has_expected_bytes(tmp_path / "out.img", spec)


# -- eight threads ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["three layers", "4096-byte logical sectors", "an odd size"])
def test_eight_threads_read_at_random(tmp_path: Path, name: str) -> None:
    """At any byte, each over a connection of its own."""
    needs_reader()
    spec = CORPUS[name](tmp_path)
    numbers = random.Random(19)
    size = spec.virtual_disk_size
    plan = [(numbers.randrange(size), numbers.randrange(1, 400_000)) for _ in range(60)]
    plan = [(offset, min(length, size - offset)) for offset, length in plan]
    with server_of(tmp_path / DISK) as server:
        done = run_peer(*reader_words(server.uri, plan, 8))
    data = spec.expected_disk(0, size)
    digests = [
        hashlib.sha256(data[offset : offset + length]).hexdigest() for offset, length in plan
    ]
    assert json.loads(done) == [digests] * 8


# -- options of opening, partitions, real images ------------------------------------------------


def test_salvaged_disk_is_served(capfd: Capture, tmp_path: Path) -> None:
    needs_program("nbdcopy")
    spec = ImageSpec(4 * MIB, MIB, {0: Block(), 2: Block(), 3: Block()})
    path = write_files(tmp_path, {DISK: spec})
    with path.open("r+b") as file:
        file.truncate(spec.block_file_offset(3))
    command = 'nbdcopy "$uri" out.img && nbdinfo --map --json "$uri"'
    outcome = serve(capfd, path, command, "--salvage")
    assert outcome.exit_code == 3
    assert all(": damaged: " in line for line in outcome.err_lines)
    expected = with_lost(spec.expected_disk(0, 4 * MIB), [(3 * MIB, MIB)])
    assert (tmp_path / "out.img").read_bytes() == expected
    assert map_of(outcome.out)[-1] == (3 * MIB, MIB, False)


def test_parents_elsewhere_and_an_ignored_log_reach_the_server(
    capfd: Capture, tmp_path: Path
) -> None:
    needs_program("nbdcopy")
    row = table_7_4()[0]
    child, base = row.files["child.vhdx"], row.files["base.vhdx"]
    before = ImageSpec(4 * MIB, MIB, {0: Block()})
    after = ImageSpec(4 * MIB, MIB, {0: Block(), 2: Block()})
    write_files(tmp_path, {"one/child.vhdx": child, "two/base.vhdx": base})
    make_dirty(before, after).write(tmp_path / "dirty.vhdx")
    cases = [
        ("one/child.vhdx", child, ["--parent", str(tmp_path / "two/base.vhdx")]),
        ("one/child.vhdx", child, ["--parent-dir", str(tmp_path / "two")]),
        ("dirty.vhdx", before, ["--ignore-log"]),
    ]
    for name, spec, options in cases:
        outcome = serve(capfd, tmp_path / name, 'nbdcopy "$uri" out.img', *options)
        assert outcome.exit_code == 0, outcome.err
        assert has_expected_bytes((tmp_path / name).parent / "out.img", spec)


def test_each_partition_is_an_export(capfd: Capture, tmp_path: Path) -> None:
    needs_program("nbdcopy")
    spec = CORPUS["a child that owns every third sector"](tmp_path)
    uri = '"nbd+unix:///p$n?socket=$unixsocket"'
    copies = f"for n in {' '.join(map(str, PLACES))}; do nbdcopy {uri} p$n.img; done"
    outcome = serve(capfd, tmp_path / DISK, f'{copies}; nbdinfo --json --list "$uri"', "-v")
    assert outcome.exit_code == 0
    assert "the exports are disk, p1, p2, p3" in outcome.err
    for number, (first, end) in PLACES.items():
        expected = spec.expected_disk(first * SECTOR, (end - first) * SECTOR)
        assert (tmp_path / f"p{number}.img").read_bytes() == expected
    exports = {export["export-name"]: export for export in json.loads(outcome.out)["exports"]}
    assert list(exports) == ["disk", "p1", "p2", "p3"]
    assert exports["disk"]["description"] == "differencing disk"
    assert exports["p1"]["description"] == "partition 1, EFI System"
    for export in exports.values():
        assert export["is_read_only"] is True
        assert export["can_multi_conn"] is True
        sizes = [export[f"block_size_{name}"] for name in ("minimum", "preferred", "maximum")]
        assert sizes == [1, 4096, 64 * MIB]


def test_plugin_works_by_hand(tmp_path: Path) -> None:
    """Without the variables that `serve` sets, from a folder of the user."""
    needs_server()
    needs_program("nbdcopy")
    spec = CORPUS["three layers"](tmp_path)
    plugin = run_program("serve", "--plugin-path").out.strip()
    words = ["nbdkit", "-U", "-", "python", plugin, f"file={DISK}", "--run", "nbdcopy $uri out.img"]
    done = subprocess.run(words, cwd=tmp_path, check=False, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert has_expected_bytes(tmp_path / "out.img", spec)


@needs_real_images
@pytest.mark.parametrize(
    "name", [name for name, (size, _) in REAL_IMAGES.items() if size <= 2 * 1024 * MIB]
)
def test_real_image_is_copied(capfd: Capture, tmp_path: Path, name: str) -> None:
    needs_program("nbdcopy")
    path = unpack_real_image(name, tmp_path)
    outcome = serve(capfd, path, 'nbdcopy "$uri" out.img')
    assert outcome.exit_code == 0, outcome.err
    assert sha256_of(tmp_path / "out.img") == REAL_IMAGES[name][1]
