"""What lies below a prefix of an object store, as `tree` shows it."""

import pytest
from obstore.exceptions import GenericError
from obstore.store import MemoryStore

from vhdx2raw.errors import RemoteError, UnsupportedImageError
from vhdx2raw.operations.discovery import iter_files
from vhdx2raw.source.remote import listing
from vhdx2raw.source.remote.listing import iter_names
from vhdx2raw.source.remote.options import RemoteOptions
from vhdx2raw.source.remote.stores import Place

KEYS = ("vm/b.vhdx", "vm/a ä#.AVHDX", "vm/deeper/c.vhdx", "vm/notes.txt", "vms/d.vhdx", "e.vhdx")
BUSY = GenericError("Server returned non-2xx status code: 503: secret")


@pytest.fixture(autouse=True)
def _store(monkeypatch: pytest.MonkeyPatch) -> None:
    store = MemoryStore()
    for key in KEYS:
        store.put(key, b"x")
    monkeypatch.setattr(listing, "open_store", lambda url, *_, **__: Place(store, url.path))
    monkeypatch.setattr(listing, "PAUSE", 0)


@pytest.mark.parametrize("folder", ["s3://bucket/vm", "s3://bucket/vm/"])
def test_disks_below_a_prefix_are_listed_in_order(folder: str) -> None:
    found = list(iter_files(folder, lambda _: None))
    names = ("a ä#.AVHDX", "b.vhdx", "deeper/c.vhdx")
    assert found == [f"s3://bucket/vm/{name}" for name in names]


def test_all_of_a_bucket_is_listed() -> None:
    found = list(iter_names("s3://bucket", RemoteOptions()))
    assert found == sorted(f"s3://bucket/{key}" for key in KEYS)


def test_web_server_cannot_be_listed() -> None:
    with pytest.raises(UnsupportedImageError, match="of a web server cannot be listed"):
        list(iter_names("https://me:secret@host/vm/", RemoteOptions()))


@pytest.mark.parametrize(("retries", "times"), [(0, 1), (2, 3)])
def test_list_is_asked_for_again(monkeypatch: pytest.MonkeyPatch, retries: int, times: int) -> None:
    tries: list[Place] = []

    def fail(place: Place) -> list[str]:
        tries.append(place)
        raise BUSY

    monkeypatch.setattr(listing, "_list", fail)
    with pytest.raises(RemoteError, match="cannot be listed: the server answered with HTTP 503"):
        list(iter_names("s3://bucket/vm", RemoteOptions(retries=retries)))
    assert len(tries) == times
