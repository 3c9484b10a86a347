"""Hostile images and servers on a network: nothing is asked of a host that the user did not name.

And no password, key or signature is ever shown or stored.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.builder import (
    MIB,
    TIB,
    Block,
    ImageSpec,
    child_of,
    linkage_text,
    parent_locator,
)
from tests.support.chains import base_disk
from tests.support.files import has_expected_bytes, names_in
from tests.support.memory import MAX_RESIDENT, run_and_measure
from tests.support.servers import faults
from tests.support.servers.exports import Exports, exports
from tests.support.servers.web import OTHER_HOST, Fault, Reply, Request, WebServer

USER, PASSWORD, SIGNATURE = "exporter", "pa55-w0rd", "s1gnature-of-th3-url"
BASIC = f"Basic {base64.b64encode(f'{USER}:{PASSWORD}'.encode()).decode()}"
SECRETS = (PASSWORD, SIGNATURE, BASIC.split()[1])
BASE = base_disk()


@pytest.fixture
def place(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> Iterator[Exports]:
    with exports(tmp_path, capfd) as place:
        yield place


@pytest.fixture
def other(tmp_path: Path) -> Iterator[WebServer]:
    """Give a server on another host, which has every parent that could be asked for."""
    folder = tmp_path / "other"
    folder.mkdir()
    BASE.write(folder / "base.vhdx")

    def answer(request: Request) -> Reply:
        return server_of_base(request) if "base" in request.path else Reply(404)

    with WebServer(folder) as inner, WebServer(answer, host=OTHER_HOST) as server:

        def server_of_base(request: Request) -> Reply:
            return inner.reply_to(request.method, "/base.vhdx", request.headers, request.client)

        yield server


# -- no request to anything that an image names -------------------------------------------------

NAMES = [
    "{other}/base.vhdx",
    "{OTHER}/base.vhdx",
    "//{host}/base.vhdx",
    "\\\\{host}\\exports\\base.vhdx",
    "\\\\?\\UNC\\{host}\\base.vhdx",
    ".\\{other}/base.vhdx",
    "@{host}/base.vhdx",
    ":@{host}/base.vhdx",
    ".@{host}\\base.vhdx",
    "..\\..\\..\\..\\@{host}\\base.vhdx",
    ".\\base.vhdx\r\nHost: {host}",
    ".\\base.vhdx HTTP/1.1\r\n\r\nGET /secret/base.vhdx",
    "s3://exports/base.vhdx",
    "az://exports/base.vhdx",
    "gs://exports/base.vhdx",
    "file:///etc/passwd",
    "ftp://{host}/base.vhdx",
    "C:\\exports\\{other}\\base.vhdx",
    "..\\secret\\base.vhdx",
    "..\\..\\secret\\base.vhdx",
    ".\\..\\secret\\base.vhdx",
    "..%2fsecret%2fbase.vhdx",
    "%2e%2e\\secret\\base.vhdx",
    "..%5csecret%5cbase.vhdx",
    "\\secret\\base.vhdx",
    "/secret/base.vhdx",
    "secret\\..\\..\\secret\\base.vhdx",
    "..;\\secret\\base.vhdx",
    "",
    ".",
    "..",
    "\\",
]
"""What an image can write where the name of its parent belongs."""


@pytest.mark.parametrize("name", NAMES)
def test_what_an_image_names_is_looked_for_below_it_only(
    place: Exports, other: WebServer, name: str
) -> None:
    host = other.url.removeprefix("http://")
    text = name.format(other=other.url, OTHER=other.url.upper(), host=host)
    keys = {"parent_linkage": linkage_text(BASE.data_write_guid)}
    keys |= dict.fromkeys(["relative_path", "absolute_win32_path", "volume_path"], text)
    child = child_of(BASE, "base.vhdx", locator=parent_locator(keys))
    place.write({"vm/child.avhdx": child, "secret/base.vhdx": BASE})
    outcome = place.convert(place.url("vm/child.avhdx"))
    # An absolute path may be no use at all, or its last part is looked for beside the child.
    assert outcome.exit_code in (4, 5, 6), outcome.err
    assert "Traceback" not in outcome.err
    assert names_in(place.outputs) == []
    assert other.requests == []
    # As it was sent, and as a server may understand it.
    for request in place.server.requests:
        assert request.target.startswith("/vm/")
        assert request.path.startswith("vm/")
        assert not {"", ".", ".."} & set(request.path.split("/"))
        assert request.headers["host"] == place.server.url.removeprefix("http://")
        assert request.method in ("GET", "HEAD", "PROPFIND")


@pytest.mark.parametrize("name", ["{other}/base.vhdx", "\\\\{host}\\exports\\base.vhdx"])
def test_a_local_image_asks_nobody_either(
    place: Exports, other: WebServer, tmp_path: Path, name: str
) -> None:
    host = other.url.removeprefix("http://")
    keys = {
        "parent_linkage": linkage_text(BASE.data_write_guid),
        "relative_path": name.format(other=other.url, host=host),
    }
    child_of(BASE, "x", locator=parent_locator(keys)).write(tmp_path / "child.avhdx")
    assert place.convert(str(tmp_path / "child.avhdx")).exit_code == 6
    assert other.requests == []


def test_a_remote_image_opens_no_local_file(
    place: Exports, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not even one with the right name in the current folder."""
    BASE.write(tmp_path / "base.vhdx")
    monkeypatch.chdir(tmp_path)
    keys = {
        "parent_linkage": linkage_text(BASE.data_write_guid),
        "relative_path": ".\\base.vhdx",
        "absolute_win32_path": str(tmp_path / "base.vhdx").replace("/", "\\"),
    }
    url = place.write({"vm/child.avhdx": child_of(BASE, "x", locator=parent_locator(keys))})
    place.assert_fails(6, "base.vhdx", url)


# -- redirects ----------------------------------------------------------------------------------


def test_the_named_file_may_be_redirected_to_another_host(
    place: Exports, other: WebServer, tmp_path: Path
) -> None:
    place.server.fault = faults.always(faults.redirect(other.url))
    place.assert_converts(BASE, place.url("base.vhdx"))
    assert other.requests


def test_credentials_do_not_follow_a_redirect(place: Exports, other: WebServer) -> None:
    place.server.fault = faults.always(faults.redirect(other.url))
    url = place.url("base.vhdx").replace("//", f"//{USER}:{PASSWORD}@")
    place.assert_converts(BASE, url)
    assert any(r.headers.get("authorization") == BASIC for r in place.server.requests)
    assert [r for r in other.requests if "authorization" in r.headers] == []


@pytest.mark.parametrize("code", [301, 302, 303, 307, 308])
def test_a_parent_is_not_redirected_to_another_host(
    place: Exports, other: WebServer, code: int
) -> None:
    url = place.write({"vm/child.avhdx": child_of(BASE, ".\\base.vhdx")})
    redirect = faults.redirect(other.url, code)
    place.server.fault = lambda request: redirect if "base" in request.path else None
    place.assert_fails(6, "base.vhdx", url)
    assert other.requests == []


def test_a_file_is_not_redirected_elsewhere_in_the_middle(place: Exports, other: WebServer) -> None:
    """The other host has a version of its own, with another ETag."""
    url = place.write({"base.vhdx": BASE})
    place.server.fault = faults.from_offset(4 * MIB, faults.redirect(other.url))
    outcome = place.convert(url)
    assert outcome.exit_code in (0, 8, 9)
    if outcome.exit_code:
        assert names_in(place.outputs) == []
    else:
        assert has_expected_bytes(place.target, BASE)


# -- secrets ------------------------------------------------------------------------------------


def secret_url(place: Exports, name: str) -> str:
    """Give a URL with everything in it that nobody else may know."""
    place.server.fault = both_demanded
    return place.url(name).replace("//", f"//{USER}:{PASSWORD}@") + f"?sig={SIGNATURE}"


def both_demanded(request: Request) -> Fault:
    user = faults.demand("Authorization", BASIC)
    query = faults.demand_query(f"sig={SIGNATURE}")
    return user if request.headers.get("authorization") != BASIC else query


def assert_no_secret(place: Exports, *texts: str) -> None:
    """Look at what was printed, and at every file that is there."""
    files = [p for p in place.outputs.rglob("*") if p.is_file() and p.suffix != ".img"]
    written = [path.read_bytes().decode("latin-1") for path in files]
    for text in (*texts, *written, *map(str, files)):
        for secret in (*SECRETS, USER + ":"):
            assert secret not in text


COMMANDS = [
    ("info",),
    ("info", "--json"),
    ("map", "--json"),
    ("check", "--json"),
    ("hash",),
    ("hash", "--json"),
]


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_secrets_are_not_shown_by_a_command(place: Exports, words: tuple[str, ...]) -> None:
    place.write({"base.vhdx": BASE})
    outcome = place.run(*words, secret_url(place, "base.vhdx"))
    assert (outcome.exit_code, outcome.err) == (0, "")
    assert_no_secret(place, outcome.out)


def test_secrets_are_not_shown_or_stored_by_a_conversion(place: Exports) -> None:
    place.write({"base.vhdx": BASE})
    url = secret_url(place, "base.vhdx")
    words = ("-v", "--save-state", "--json", "--hash", "sha256")
    outcome = place.convert(url, *words)
    assert outcome.exit_code == 0, outcome.err
    assert names_in(place.outputs) == ["disk.img", "disk.img.state.json"]
    assert_no_secret(place, outcome.out, outcome.err)
    again = place.run("batch", "--output-dir", place.outputs, "-v", url)
    assert again.exit_code == 0
    assert "base.img" in names_in(place.outputs)
    assert_no_secret(place, again.out, again.err)


def test_secrets_are_not_in_what_a_cut_off_conversion_leaves(place: Exports) -> None:
    spec = ImageSpec(64 * MIB, MIB, {index: Block() for index in range(64)})
    place.write({"disk.vhdx": spec})
    url = secret_url(place, "disk.vhdx")
    place.server.fault = lambda request: (
        faults.reset() if request.range and request.range[0] >= 40 * MIB else both_demanded(request)
    )
    words = ("--resume", "--retries", "0", "--connections", "1", "--workers", "1")
    outcome = place.convert(url, *words)
    assert outcome.exit_code == 8
    assert ".disk.img.resume.json" in names_in(place.outputs)
    assert_no_secret(place, outcome.out, outcome.err)


@pytest.mark.parametrize(
    "fault",
    [
        faults.status(401),
        faults.status(403),
        faults.status(404),
        faults.status(412),
        faults.status(416),
        faults.status(500),
        faults.reset(),
        faults.cut_off(10),
        faults.stall(20),
        faults.ignore_range(),
        faults.short_body(),
        faults.shifted_range(1),
        faults.with_headers(content_encoding="br"),
        faults.redirect("http://127.0.0.1:1"),
        faults.redirect(f"http://{USER}:{PASSWORD}@127.0.0.1:1/?sig={SIGNATURE}"),
    ],
)
@pytest.mark.parametrize("offset", [0, 4 * MIB])
def test_secrets_are_not_in_the_message_of_a_failure(
    place: Exports, fault: Fault, offset: int
) -> None:
    place.write({"base.vhdx": BASE})
    url = secret_url(place, "base.vhdx")
    place.server.fault = lambda request: (
        fault if (request.range or (0, 0))[0] >= offset else both_demanded(request)
    )
    words = ("--retries", "1", "--timeout", "0.3", "--json", "-v")
    outcome = place.convert(url, *words)
    assert outcome.exit_code in (8, 9)
    assert json.loads(outcome.out)["error"]["exit-code"] == outcome.exit_code
    assert_no_secret(place, outcome.out, outcome.err)


def test_secrets_are_not_in_messages_about_what_is_no_disk(place: Exports) -> None:
    place.write({"text": b"no disk at all" * 99999})
    outcome = place.run("-v", secret_url(place, "text"), place.target)
    assert outcome.exit_code == 4
    assert_no_secret(place, outcome.err)


def test_secrets_are_not_in_messages_about_parents(place: Exports) -> None:
    """The query of a signed URL is for one file, so a parent is asked for without it."""
    place.write({"vm/child.avhdx": child_of(BASE, ".\\base.vhdx")})
    outcome = place.run(secret_url(place, "vm/child.avhdx"), place.target)
    assert outcome.exit_code == 6
    assert_no_secret(place, outcome.out, outcome.err)


@pytest.mark.parametrize(
    "url",
    [
        f"http://{USER}:{PASSWORD}@[::1/base.vhdx?sig={SIGNATURE}",
        f"http://{USER}:{PASSWORD}@127.0.0.1:99999/base.vhdx?sig={SIGNATURE}",
        f"http://{USER}:{PASSWORD}@127.0.0.1:port/base.vhdx?sig={SIGNATURE}",
        f"http://{USER}:{PASSWORD}@/base.vhdx?sig={SIGNATURE}",
        f"http://{USER}:{PASSWORD}@127.0.0.1:1?sig={SIGNATURE}",
        f"HTTP://{USER}:{PASSWORD}@127.0.0.1:1/b?sig={SIGNATURE}",
        f"ftp://{USER}:{PASSWORD}@127.0.0.1:1/b?sig={SIGNATURE}",
        f"sftp://{USER}:{PASSWORD}@127.0.0.1:1/b",
        f"s3://{USER}:{PASSWORD}@127.0.0.1:1/b?sig={SIGNATURE}",
        f"http://{USER}:{PASSWORD}@127.0.0.1:1/a b\n?sig={SIGNATURE}",
    ],
)
@pytest.mark.parametrize("command", ["convert", "info"])
def test_secrets_are_not_shown_of_a_url_that_is_wrong(
    place: Exports, url: str, command: str
) -> None:
    target = [place.target] if command == "convert" else []
    outcome = place.run(command, "--retries", "0", "--json", url, *target)
    assert outcome.exit_code in (2, 4, 8)
    assert "Traceback" not in outcome.err
    assert len(outcome.err_lines) <= 2
    assert_no_secret(place, outcome.out, outcome.err)


def test_http_is_said_to_be_unencrypted_only_with_v(place: Exports) -> None:
    url = place.write({"base.vhdx": BASE})
    assert "encrypted" not in place.assert_converts(BASE, url).err
    assert "encrypted" in place.assert_converts(BASE, url, "-v").err


# -- hostile servers ----------------------------------------------------------------------------


def test_a_name_for_the_terminal_is_not_obeyed(place: Exports) -> None:
    place.server.fault = faults.always(faults.status(500, b"\x1b[2J\x1b]0;owned\x07" * 100))
    outcome = place.convert(place.url("a%1b%5b2Jb.vhdx"), "--retries", "0")
    assert outcome.exit_code == 8
    assert "\x1b" not in outcome.err


@pytest.mark.parametrize("size", [2**63 - 1, 2**63, 2**64, 10**30, -1])
def test_an_impossible_size_is_a_failure(place: Exports, size: int) -> None:
    """As Content-Range and Content-Length both can say anything."""
    url = place.write({"disk.vhdx": ImageSpec(4 * MIB, MIB, {0: Block()})})
    headers = {"content_range": f"bytes 0-65535/{size}"}
    place.server.fault = faults.always(faults.with_headers(**headers))
    outcome = place.convert(url, "--retries", "0")
    assert outcome.exit_code in (4, 5, 8, 9)
    assert "Traceback" not in outcome.err
    assert names_in(place.outputs) == []


def test_a_server_that_never_ends_is_left(place: Exports, tmp_path: Path) -> None:
    """Little more is read than was asked for, and not all of it kept."""
    url = place.write({"disk.vhdx": BASE})
    with (tmp_path / "endless").open("wb") as file:
        file.truncate(TIB)
    place.server.fault = faults.always(faults.endless_body(tmp_path / "endless"))
    code, peak, _ = run_and_measure(url, place.target)
    assert code == 8
    assert peak < MAX_RESIDENT
    assert names_in(place.outputs) == []
