"""Images that Hyper-V and QEMU wrote, where a folder of them lies beside the checkout.

Its README.md names the SHA-256 of the raw disk for each.
"""

import hashlib
from pathlib import Path

import pytest

from tests.support.cli import run
from tests.support.files import assert_same_disk, names_in, sha256_of
from tests.support.peers import run_peer
from tests.support.real_images import CLEAN, REAL_IMAGES, needs_real_images, unpack_real_image
from vhdx2raw.cli import main

pytestmark = needs_real_images


def test_the_table_of_images_is_read() -> None:
    assert len(CLEAN) >= 4
    assert {Path(name).suffix for name in REAL_IMAGES} <= {".gz", ".bz2"}


@pytest.mark.parametrize("name", CLEAN)
def test_a_real_image_converts_to_the_known_disk(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], name: str
) -> None:
    size, expected = REAL_IMAGES[name]
    image, outputs = unpack_real_image(name, tmp_path), tmp_path / "outputs"
    outputs.mkdir()
    before = (sha256_of(image), image.stat().st_mtime_ns)
    outcome = run(capfd, image, outputs / "out.img")
    assert (outcome.exit_code, outcome.out, outcome.err) == (0, "", "")
    assert names_in(outputs) == ["out.img"]
    assert (outputs / "out.img").stat().st_size == size
    assert sha256_of(outputs / "out.img") == expected
    assert (sha256_of(image), image.stat().st_mtime_ns) == before


@pytest.mark.parametrize("name", CLEAN)
def test_qemu_img_reads_a_real_image_as_we_do(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], name: str
) -> None:
    image, ours, theirs = unpack_real_image(name, tmp_path), tmp_path / "ours", tmp_path / "theirs"
    assert run(capfd, image, ours).exit_code == 0
    run_peer("qemu-img", "convert", "-f", "vhdx", "-O", "raw", image, theirs)
    assert_same_disk(ours, theirs)


@pytest.mark.parametrize("name", CLEAN[:2])
def test_a_stream_of_a_real_image_is_the_same_disk(
    tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes], name: str
) -> None:
    image = unpack_real_image(name, tmp_path)
    assert main([str(image), "-"]) == 0
    data = capfdbinary.readouterr().out
    assert hashlib.sha256(data).hexdigest() == REAL_IMAGES[name][1]
