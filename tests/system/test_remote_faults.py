"""Whatever goes wrong between a server and us: the right bytes, or exit 8 or 9 and no output."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.builder import MIB, Block, ImageSpec
from tests.support.cli import TIMEOUT, start_program
from tests.support.files import names_in
from tests.support.servers import faults
from tests.support.servers.exports import Exports, exports
from tests.support.servers.faults import Choice
from tests.support.servers.web import Fault, Request


def far_apart(content: bytes | None = None) -> dict[int, Block]:
    """Give four blocks side by side in the file, and four that are fetched one by one."""
    default: dict[str, Any] = {} if content is None else {"content": content}
    places = [4, 5, 6, 7, 32, 64, 96, 128]
    return {i: Block(file_offset=at * MIB, **default) for i, at in enumerate(places)}


DISK = ImageSpec(16 * MIB, MIB, far_apart())
CHANGED = ImageSpec(16 * MIB, MIB, far_apart(b"new"))
DATA, LATER = 4 * MIB, 128 * MIB
"""Where the first and the last block lie in the file."""
NAME = "disk.vhdx"
MOMENT = 0.2
"""Seconds of --timeout where a server lets us wait longer."""


@pytest.fixture
def place(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> Iterator[Exports]:
    with exports(tmp_path, capfd) as place:
        place.write({NAME: DISK})
        yield place


PASSING = {
    "reset": faults.reset(),
    "reset in the body": faults.reset(1000),
    "cut off": faults.cut_off(5000),
    "stalled": faults.stall(20),
    "late": faults.late(20),
    "408": faults.status(408),
    "429": faults.status(429, retry_after="0"),
    "500": faults.status(500),
    "502": faults.status(502, b"<html>Bad gateway</html>"),
    "503": faults.status(503),
    "504": faults.status(504),
}
"""What may be over when it is tried again, and what is said if it is not."""
WORDS = {
    "reset": "connection",
    "reset in the body": "connection",
    "cut off": "the connection was cut off",
    "stalled": "timed out",
    "late": "timed out",
}


@pytest.mark.parametrize(
    ("offset", "name"), [*((DATA, name) for name in PASSING), (0, "reset"), (0, "late"), (0, "503")]
)
def test_what_passes_is_tried_again(place: Exports, offset: int, name: str) -> None:
    place.server.fault = faults.once_from_offset(offset, PASSING[name])
    outcome = place.assert_converts(DISK, place.url(NAME), "--timeout", str(MOMENT))
    assert outcome.err == ""


@pytest.mark.parametrize("name", PASSING)
@pytest.mark.parametrize("offset", [0, DATA])
def test_what_does_not_pass_ends_after_some_tries(place: Exports, name: str, offset: int) -> None:
    place.server.fault = faults.from_offset(offset, PASSING[name])
    words = ("--timeout", str(MOMENT), "--connections", "1", "--workers", "1")
    text = WORDS.get(name, f"the server answered with HTTP {name}")
    outcome = place.assert_fails(8, text, place.url(NAME), *words)
    assert "tried 3 times" in outcome.err
    spoiled = [r for r in place.server.requests if (r.range or (0, 0))[0] >= offset]
    assert len(spoiled) == 3


def test_there_are_no_more_tries_than_asked_for(place: Exports) -> None:
    place.server.fault = faults.always(faults.status(503))
    outcome = place.assert_fails(8, "HTTP 503", place.url(NAME), "--retries", "0")
    assert "tried" not in outcome.err.replace("(tried once)", "")
    assert len(place.server.requests) == 1


AT_ONCE = {
    "401": (faults.status(401), 8, "(HTTP 401)"),
    "403": (faults.status(403, b"<Error>no</Error>"), 8, "access is denied (HTTP 403)"),
    "404": (faults.status(404), 8, "does not exist (HTTP 404)"),
    "410": (faults.status(410), 8, "HTTP 410"),
    "412": (faults.status(412), 9, "was changed while it was read"),
    "range ignored": (faults.ignore_range(), 8, "whole files only"),
    "short body": (faults.short_body(), 8, "bytes where"),
    "very short body": (faults.short_body(4096), 8, "bytes where"),
    "long body": (faults.long_body(), 8, "bytes where"),
    "shifted": (faults.shifted_range(512), 8, "another range than"),
    "wrong range": (faults.wrong_range(), 8, "another range than"),
    "gzip": (faults.with_headers(content_encoding="gzip"), 8, "compressed"),
}


@pytest.mark.parametrize("name", AT_ONCE)
def test_what_does_not_pass_is_not_tried_again(place: Exports, name: str) -> None:
    fault, code, text = AT_ONCE[name]
    place.server.fault = faults.from_offset(DATA, fault)
    words = ("--connections", "1", "--workers", "1")
    place.assert_fails(code, text, place.url(NAME), *words)
    assert len([r for r in place.server.requests if r.range and r.range[0] >= DATA]) == 1


@pytest.mark.parametrize("name", [name for name in AT_ONCE if name != "412"])
def test_the_same_when_the_file_is_opened(place: Exports, name: str) -> None:
    fault, code, text = AT_ONCE[name]
    place.server.fault = faults.always(fault)
    place.assert_fails(code, text, place.url(NAME))


@pytest.mark.parametrize("by", [-512, 512, MIB])
def test_a_file_of_another_size_is_another_file(place: Exports, by: int) -> None:
    place.server.fault = faults.from_offset(DATA, faults.wrong_size(by))
    place.assert_fails(9, "was changed while it was read", place.url(NAME))


def test_a_range_past_the_end_is_a_failure(place: Exports) -> None:
    place.server.fault = faults.from_offset(DATA, faults.status(416))
    outcome = place.convert(place.url(NAME))
    assert outcome.exit_code in (8, 9)
    assert len(outcome.err_lines) <= 2
    assert not place.target.exists()


WORDS_OF_FAILURES = "certificate/InvalidCertificate/UnexpectedRange/127.0.0.1:0/169.254.1.1"


def test_words_in_a_url_do_not_explain_a_failure(place: Exports) -> None:
    name = f"{WORDS_OF_FAILURES}/{NAME}"
    place.write({name: DISK})
    place.server.fault = faults.at({1, 3}, faults.reset())
    assert place.assert_converts(DISK, place.url(name)).err == ""


# -- another version ----------------------------------------------------------------------------


def changed_before(place: Exports, offset: int, spoil: Fault | None = None) -> Choice:
    """Replace the file at the first request for an offset; let `spoil` answer from then on."""
    state = {"changed": False}

    def choose(request: Request) -> Fault | None:
        if (request.range or (0, 0))[0] >= offset and not state["changed"]:
            state["changed"] = True
            CHANGED.write(place.folder / "next")
            os.utime(place.folder / "next", (1_800_000_000, 1_800_000_000))
            (place.folder / "next").replace(place.folder / NAME)
        return spoil

    return choose


OBLIVIOUS = {
    "that compares": None,
    "that ignores If-Match": faults.ignore_version(),
    "without an ETag": faults.without("etag"),
    "with an ETag that stays": faults.with_headers(etag='"same"'),
}


@pytest.mark.parametrize("server", list(OBLIVIOUS)[:3])
@pytest.mark.parametrize("offset", [DATA, LATER])
def test_a_file_that_changes_meanwhile_is_no_output(
    place: Exports, server: str, offset: int
) -> None:
    place.server.fault = changed_before(place, offset, OBLIVIOUS[server])
    words = ("--connections", "1", "--workers", "1")
    place.assert_fails(9, "was changed while it was read", place.url(NAME), *words)


def test_a_file_without_etag_and_date_that_changes_in_size(place: Exports) -> None:
    """Nothing but the size can tell."""
    state = {"longer": False}
    silent = faults.without("etag", "last_modified")

    def choose(request: Request) -> Fault:
        if (request.range or (0, 0))[0] >= LATER and not state["longer"]:
            state["longer"] = True
            with (place.folder / NAME).open("ab") as file:
                file.write(bytes(MIB))
        return silent

    place.server.fault = choose
    outcome = place.convert(place.url(NAME), "--connections", "1", "--workers", "1")
    assert outcome.exit_code == 9
    assert "its size is" in outcome.err
    assert not place.target.exists()


def test_a_server_without_etag_and_date_is_read_with_a_warning(place: Exports) -> None:
    place.server.fault = faults.always(faults.without("etag", "last_modified"))
    outcome = place.assert_converts(DISK, place.url(NAME))
    assert len(outcome.err_lines) == 1
    assert "warning" in outcome.err
    assert "neither an ETag nor a date" in outcome.err


@pytest.mark.parametrize(
    "fault",
    [
        faults.without("etag"),
        faults.without("last_modified"),
        faults.with_headers(etag='W/"weak"'),
        faults.without("accept_ranges"),
    ],
    ids=["no ETag", "no date", "weak ETag", "no Accept-Ranges"],
)
def test_a_server_that_says_less_is_read(place: Exports, fault: Fault) -> None:
    place.server.fault = faults.always(fault)
    assert place.assert_converts(DISK, place.url(NAME)).err == ""


def test_every_request_names_the_version_that_was_opened(place: Exports) -> None:
    place.assert_converts(DISK, place.url(NAME))
    tags = [request.headers.get("if-match") for request in place.server.requests]
    first = [tag for tag in tags if tag]
    assert len(set(first)) == 1
    assert tags[tags.index(first[0]) :] == [first[0]] * (len(tags) - tags.index(first[0]))
    data = [r for r in place.server.requests if r.range and r.range[0] >= DATA]
    assert data
    assert all(r.headers.get("if-match") == first[0] for r in data)


def test_allow_changed_does_not_make_two_versions_one_disk(place: Exports) -> None:
    """Half of one version and half of the other is nobody's disk, whatever is allowed."""
    place.server.fault = changed_before(place, LATER)
    words = ("--allow-changed", "--connections", "1", "--workers", "1")
    place.assert_fails(9, "was changed while it was read", place.url(NAME), *words)


# -- nobody there -------------------------------------------------------------------------------


def test_no_server(place: Exports) -> None:
    place.server.__exit__()
    place.assert_fails(8, "there is no connection", place.url(NAME))


def test_no_such_host(place: Exports) -> None:
    outcome = place.assert_fails(
        8, "http://no-such-host.invalid/disk.vhdx: ", "http://no-such-host.invalid/disk.vhdx"
    )
    assert "Debug source" not in outcome.err


def test_endless_redirects_end(place: Exports) -> None:
    place.server.fault = faults.always(faults.redirect(place.server.url))
    place.assert_fails(8, place.url(NAME), place.url(NAME), "--retries", "0")
    assert len(place.server.requests) <= 25


@pytest.mark.parametrize("offset", [0, DATA])
def test_a_signal_ends_the_wait_for_a_server(place: Exports, offset: int) -> None:
    """And not the time-out, which is far away."""
    asked = threading.Event()

    def choose(request: Request) -> Fault | None:
        if (request.range or (0, 0))[0] < offset:
            return None
        asked.set()
        return faults.stall(TIMEOUT)

    place.server.fault = choose
    words = ("--timeout", "3600", place.url(NAME), place.target)
    with start_program(*words) as process:
        assert asked.wait(TIMEOUT)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=TIMEOUT / 2)
    assert (process.returncode, err) == (130, b"vhdx2raw: interrupted\n")
    assert names_in(place.outputs) == []
