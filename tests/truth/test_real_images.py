"""Images that Hyper-V and QEMU wrote, where a folder of them lies beside the checkout.

Its README.md names the SHA-256 of the raw disk for each.
"""

import bz2
import gzip
import hashlib
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.support.cli import run
from tests.support.files import assert_same_disk, names_in, sha256_of
from tests.support.paths import SHARED_IMAGES
from tests.support.peers import needs_program
from vhdx2raw.cli import main

FOLDER = SHARED_IMAGES
ROW = re.compile(
    r"^\| `(?P<name>\S+)` \|.*\| (?P<size>\d+) \| (?P<sha256>[0-9a-f]{64}) \|$", re.MULTILINE
)
ALL = {
    row["name"]: (int(row["size"]), row["sha256"])
    for row in (ROW.finditer((FOLDER / "README.md").read_text()) if FOLDER.exists() else ())
}
CLEAN = [name for name in ALL if "dirtylog" not in name]

pytestmark = pytest.mark.skipif(
    not FOLDER.exists(), reason="no folder of real images beside the checkout"
)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Decompress every image that has a hash into one folder."""
    folder = tmp_path_factory.mktemp("real")
    for name in ALL:
        packed = FOLDER / name
        with (
            bz2.open(packed) if packed.suffix == ".bz2" else gzip.open(packed) as source,
            (folder / packed.stem).open("wb") as target,
        ):
            shutil.copyfileobj(source, target)
    return folder


def test_the_table_of_images_is_read() -> None:
    assert len(CLEAN) >= 4
    assert {(FOLDER / name).suffix for name in ALL} <= {".gz", ".bz2"}


@pytest.mark.parametrize("name", CLEAN)
def test_a_real_image_converts_to_the_known_disk(
    images: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], name: str
) -> None:
    size, expected = ALL[name]
    image = images / Path(name).stem
    before = (sha256_of(image), image.stat().st_mtime_ns)
    outcome = run(capfd, image, tmp_path / "out.img")
    assert (outcome.exit_code, outcome.out, outcome.err) == (0, "", "")
    assert names_in(tmp_path) == ["out.img"]
    assert (tmp_path / "out.img").stat().st_size == size
    assert sha256_of(tmp_path / "out.img") == expected
    assert (sha256_of(image), image.stat().st_mtime_ns) == before


@pytest.mark.parametrize("name", CLEAN)
def test_qemu_img_reads_a_real_image_as_we_do(
    images: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], name: str
) -> None:
    needs_program("qemu-img")
    image, ours, theirs = images / Path(name).stem, tmp_path / "ours", tmp_path / "theirs"
    assert run(capfd, image, ours).exit_code == 0
    command = ["qemu-img", "convert", "-f", "vhdx", "-O", "raw", str(image), str(theirs)]
    subprocess.run(command, check=True)
    assert_same_disk(ours, theirs)


@pytest.mark.parametrize("name", CLEAN[:2])
def test_a_stream_of_a_real_image_is_the_same_disk(
    images: Path, capfdbinary: pytest.CaptureFixture[bytes], name: str
) -> None:
    image = images / Path(name).stem
    assert main([str(image), "-"]) == 0
    data = capfdbinary.readouterr().out
    assert hashlib.sha256(data).hexdigest() == ALL[name][1]
