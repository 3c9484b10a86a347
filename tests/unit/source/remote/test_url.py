"""Which file a URL names, what of it is shown, and where its parents may lie."""

import pytest

from vhdx2raw.errors import UnsupportedImageError
from vhdx2raw.source.remote.url import clean_name, parse_url

READ = {
    "https://host/a/disk.vhdx": ("https", "host", "a/disk.vhdx"),
    "HTTP://host:8080/disk.vhdx": ("http", "host:8080", "disk.vhdx"),
    "https://[::1]:8443/disk.vhdx": ("https", "[::1]:8443", "disk.vhdx"),
    "https://host//disk.vhdx": ("https", "host", "/disk.vhdx"),
    "https://host/my%20disk.vhdx": ("https", "host", "my%20disk.vhdx"),
    "https://host/my disk ü.vhdx": ("https", "host", "my%20disk%20%C3%BC.vhdx"),
    "s3://bucket/vm/my%20disk #1.vhdx": ("s3", "bucket", "vm/my%20disk #1.vhdx"),
    "gs://bucket/disk.vhdx": ("gs", "bucket", "disk.vhdx"),
    "az://container/vm/disk.vhdx": ("az", "container", "vm/disk.vhdx"),
    "abfss://container/disk.vhdx": ("az", "container", "disk.vhdx"),
}


@pytest.mark.parametrize("text", READ)
def test_url_names_a_file(text: str) -> None:
    url = parse_url(text)
    assert (url.scheme, url.host, url.path) == READ[text]
    assert (url.user, url.query, url.account) == ("", "", "")


def test_account_in_the_host_of_an_azure_url() -> None:
    url = parse_url("abfss://container@account.dfs.core.windows.net/vm/disk.vhdx")
    assert (url.scheme, url.host, url.path, url.account) == (
        "az",
        "container",
        "vm/disk.vhdx",
        "account",
    )
    assert url.name == "abfss://container@account.dfs.core.windows.net/vm/disk.vhdx"


def test_user_and_query_are_kept_but_not_shown() -> None:
    url = parse_url("https://me:secret@host/disk.vhdx?sig=secret%2F&a=b#top")
    assert (url.user, url.query) == ("me:secret", "sig=secret%2F&a=b")
    assert url.name == "https://host/disk.vhdx"
    assert "secret" not in repr(url)


REFUSED = {
    "https://": "names no file",
    "https://host": "names no file",
    "https://host/": "names no file",
    "https://host?secret": "names no file",
    "https://me:secret@host/folder/": "names no file",
    "s3://bucket": "names no file",
    "s3:///key": "names no file",
    "s3://me:secret@bucket/key": "is a URL with a user or a query, as only https has",
    "az://container/disk.vhdx?sig=secret": "is a URL with a user or a query, as only https has",
    "ftp://me:secret@host/disk.vhdx?secret": "is a URL, not a VHDX file",
}


@pytest.mark.parametrize("text", REFUSED)
def test_url_that_names_no_file_is_refused(text: str) -> None:
    with pytest.raises(UnsupportedImageError, match=REFUSED[text]) as caught:
        parse_url(text)
    assert "secret" not in f"{caught.value} {caught.value.path} {clean_name(text)}"


def test_a_folder_may_end_with_a_slash_or_be_all_of_a_host() -> None:
    assert parse_url("https://host/exports/", is_folder=True).path == "exports/"
    assert parse_url("s3://bucket", is_folder=True).path == ""


BELOW = {
    ("https://host/a/disk.vhdx", "base.vhdx"): "https://host/a/base.vhdx",
    ("https://host/disk.vhdx", "base.vhdx"): "https://host/base.vhdx",
    ("https://host/a/disk.vhdx", "b?sig#%2e.vhdx"): "https://host/a/b%3Fsig%23%252e.vhdx",
    ("https://host/a/disk.vhdx", "http://evil"): "None",
    ("https://host/a/disk.vhdx", ".."): "None",
    ("https://host/a/disk.vhdx", "."): "None",
    ("https://host/a/disk.vhdx", ""): "None",
    ("s3://bucket/a/disk.vhdx", "b ä.vhdx"): "s3://bucket/a/b ä.vhdx",
    ("s3://bucket/disk.vhdx", "../other/key"): "None",
}


@pytest.mark.parametrize(("child", "name"), BELOW)
def test_what_an_image_names_stays_below_its_folder(child: str, name: str) -> None:
    found = parse_url(child).folder.below([name])
    assert (found.name if found else "None") == BELOW[child, name]


def test_what_lies_beside_a_signed_file_has_its_query_and_user() -> None:
    parent = parse_url("https://me:pw@host/a/disk.vhdx?sig=1").folder.below(["x", "base.vhdx"])
    assert parent is not None
    assert (parent.path, parent.user, parent.query) == ("a/x/base.vhdx", "me:pw", "sig=1")


def test_file_name_is_decoded_on_a_web_server_only() -> None:
    assert parse_url("https://host/a/my%20disk.vhdx?x=y").file_name == "my disk.vhdx"
    assert parse_url("s3://bucket/a/my%20disk.vhdx").file_name == "my%20disk.vhdx"
