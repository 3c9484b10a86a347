"""A fixed VHD as a page blob: by the SDK of Azure, to Azurite."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.builder import MIB, Block, BlockState, ImageSpec, child_of
from tests.support.peers import needs_module
from tests.support.servers.buckets import AZURE_VERSION, Bucket, azure
from vhdx2raw import convert

PAGE = 512
LARGEST_WRITE = 4 * MIB


@pytest.fixture(scope="module")
def container(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bucket]:
    with azure(tmp_path_factory.mktemp("azurite")) as bucket:
        yield bucket


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Write a chain whose disk is no whole number of MiB."""
    base = ImageSpec(5 * MIB + PAGE, MIB, {0: Block(), 2: Block(content=0)})
    bits = [*range(8, 24), 2047]
    blocks = {4: Block(BlockState.PARTIALLY_PRESENT, sector_bits=bits), 5: Block()}
    child = child_of(base, "base.vhdx", blocks=blocks)
    base.write(tmp_path / "base.vhdx")
    child.write(tmp_path / "child.avhdx")
    return tmp_path / "child.avhdx"


def blob_client(container: Bucket, name: str) -> Any:  # noqa: ANN401 - of a package without types
    module = needs_module("azure.storage.blob")
    url = f"{container.prefix}/{name}{container.query}"
    # A new SDK asks for a version of the API that Azurite has not learnt yet.
    return module.BlobClient.from_blob_url(url, api_version=AZURE_VERSION)


def test_page_blob_holds_the_disk(container: Bucket, source: Path, tmp_path: Path) -> None:
    convert(source, tmp_path / "disk.vhd", output_format="vhd")
    client = blob_client(container, "disk.vhd")
    with (tmp_path / "disk.vhd").open("rb") as file:
        client.upload_blob(file, blob_type="PageBlob")
    properties = client.get_blob_properties()
    assert (properties.blob_type, properties.size) == ("PageBlob", 6 * MIB + PAGE)
    is_same = client.download_blob().readall() == (tmp_path / "disk.vhd").read_bytes()
    assert is_same


@pytest.mark.parametrize("holes", ["zeros", "source"])
def test_map_says_which_pages_to_send(
    container: Bucket,
    source: Path,
    tmp_path: Path,
    holes: Any,  # noqa: ANN401 - one of three
) -> None:
    """A page blob reads as zeros where nothing was put: holes need not be sent."""
    image, place = tmp_path / "disk.vhd", tmp_path / "map.json"
    convert(source, image, output_format="vhd", holes=holes, map_out=place)
    client = blob_client(container, f"{holes}.vhd")
    client.create_page_blob(image.stat().st_size)
    with image.open("rb") as file:
        for entry in json.loads(place.read_text()):
            if not entry["data"]:
                continue
            end = entry["start"] + entry["length"]
            for start in range(entry["start"], end, LARGEST_WRITE):
                file.seek(start)
                data = file.read(min(LARGEST_WRITE, end - start))
                client.upload_page(data, offset=start, length=len(data))
    is_same = client.download_blob().readall() == image.read_bytes()
    assert is_same
