"""What `vhdx2raw info` prints, against other truths: qemu-img, and the facts of real images."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.support.builder import GIB, MIB
from tests.support.contents import UUID_TEXT
from tests.support.info import MOUNT, Capture, facts_of, named_lines
from tests.support.paths import SAMPLE
from tests.support.peers import run_peer
from tests.support.real_images import needs_real_images, unpack_real_image


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give the current folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def qemu_image(folder: Path) -> Path:
    """Give a dynamic image that qemu-img made."""
    options = f"subformat=dynamic,block_size={8 * MIB}"
    run_peer("qemu-img", "create", "-f", "vhdx", "-o", options, "disk.vhdx", str(3 * GIB))
    return Path("disk.vhdx")


def test_qemu_img_info_agrees_on_shared_keys(qemu_image: Path, capfd: Capture) -> None:
    theirs = json.loads(run_peer("qemu-img", "info", "--output=json", qemu_image))
    shared = ["filename", "format", "virtual-size", "actual-size", "cluster-size", "dirty-flag"]
    ours = facts_of(capfd, qemu_image)
    assert {key: ours[key] for key in shared} == {key: theirs[key] for key in shared}
    assert ours["creator"].startswith("QEMU v")
    assert ours["blocks"] == {"zero": 3 * GIB // (8 * MIB)}


WINDOWS = "Microsoft Windows "
TABLE: dict[str, dict[str, Any]] = {
    "dissect-fixed.vhdx.gz": {
        "creator": f"{WINDOWS}10.0.18363.0",
        "disk-type": "fixed",
        "virtual-size": 10485760,
        "cluster-size": 2 * MIB,
        "blocks": {"fully-present": 5},
    },
    "dissect-dynamic.vhdx.gz": {
        "creator": f"{WINDOWS}10.0.18363.0",
        "disk-type": "dynamic",
        "virtual-size": 10485760,
        "cluster-size": 32 * MIB,
        "blocks": {"fully-present": 1},
    },
    "dissect-differencing.avhdx.gz": {
        "creator": f"{WINDOWS}10.0.17763.0",
        "disk-type": "differencing",
        "virtual-size": 8 * GIB,
        "cluster-size": 2 * MIB,
        "blocks": {"partially-present": 32, "not-present": 4064},
        "contents": None,
    },
    "iotest-dynamic-1G.vhdx.bz2": {
        "creator": f"{WINDOWS}6.2.9200.16384",
        "disk-type": "dynamic",
        "virtual-size": GIB,
        "cluster-size": 32 * MIB,
        "blocks": {"fully-present": 3, "zero": 29},
    },
    "iotest-dirtylog-10G-4M.vhdx.bz2": {
        "creator": "QEMU v1.6.50",
        "disk-type": "dynamic",
        "virtual-size": 10 * GIB,
        "cluster-size": MIB,
        "dirty-flag": True,
        "log": {"state": "replayed", "entries": 1},
        "blocks": {"fully-present": 18, "not-present": 10222},
    },
    "swap.vhdx.gz": {
        "creator": f"{WINDOWS}10.0.14393.0",
        "disk-type": "dynamic",
        "virtual-size": 10 * GIB,
        "cluster-size": 32 * MIB,
        "blocks": {"fully-present": 1, "zero": 1, "not-present": 318},
    },
}
INSIDE = {
    "dissect-fixed.vhdx.gz": ("mbr", "8cad3d8a", [(128 * 512, 14336 * 512, "NTFS")]),
    "dissect-dynamic.vhdx.gz": ("mbr", "8cad3df9", [(128 * 512, 14336 * 512, "NTFS")]),
}
"""What sfdisk prints of the raw disks."""


@needs_real_images
@pytest.mark.parametrize("name", TABLE)
def test_facts_of_real_images_match_the_table(folder: Path, name: str, capfd: Capture) -> None:
    facts = facts_of(capfd, unpack_real_image(name, folder))
    expected = {"dirty-flag": False, "header-number": 2, "logical-sector-size": 512} | TABLE[name]
    assert {key: facts[key] for key in expected} == expected
    if name in INSIDE:
        table = facts["contents"]["partition-table"]
        parts = [
            (part["start"], part["size"], part["volume"]["kind"]) for part in table["partitions"]
        ]
        assert (table["scheme"], table["disk-id"], parts) == INSIDE[name]


@needs_real_images
def test_the_real_swap_disk_holds_one(folder: Path, capfd: Capture) -> None:
    facts = facts_of(capfd, unpack_real_image("swap.vhdx.gz", folder))
    assert facts["contents"]["volume"] == {
        "kind": "swap",
        "usage": "swap",
        "label": "discutils \N{LATIN SMALL LETTER A WITH DIAERESIS}TES",
        "uuid": "a5d5d491-7ab0-4de8-98ab-3a8df4365824",
    }


def test_the_sample_holds_a_file_system(capfd: Capture) -> None:
    words = named_lines(capfd, SAMPLE)
    assert words["contents"] == [f'ext4 "sample", UUID {UUID_TEXT}, without a partition table']
    assert words["mount"] == [MOUNT]
