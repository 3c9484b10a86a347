"""What can go wrong between a server and its client, and when."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from pathlib import Path
from random import Random

from tests.support.servers.web import Answer, Fault, FilePart, Reply, Request

Choice = Callable[[Request], Fault | None]


# -- when ---------------------------------------------------------------------------------------


def always(fault: Fault) -> Choice:
    """Spoil every request."""
    return lambda _: fault


def at(numbers: Collection[int], fault: Fault) -> Choice:
    """Spoil the requests of these numbers, from 1 on."""
    return lambda request: fault if request.number in numbers else None


def after(number: int, fault: Fault) -> Choice:
    """Spoil every request after that many."""
    return lambda request: fault if request.number > number else None


def from_offset(offset: int, fault: Fault) -> Choice:
    """Spoil requests for what lies at an offset of the file or after it."""
    return lambda request: fault if (request.range or (0, 0))[0] >= offset else None


def once_from_offset(offset: int, fault: Fault) -> Choice:
    """Spoil the first request for what lies at an offset of the file or after it."""
    is_left = [True]

    def choose(request: Request) -> Fault | None:
        if is_left and (request.range or (0, 0))[0] >= offset:
            is_left.clear()
            return fault
        return None

    return choose


def sometimes(chance: Random, share: float, faults: Sequence[Fault]) -> Choice:
    """Spoil a share of the requests, each with one of the faults."""
    return lambda _: chance.choice(faults) if chance.random() < share else None


# -- connections --------------------------------------------------------------------------------


def late(seconds: float) -> Fault:
    """Answer rightly, but only after some time."""
    return lambda request, answer: replace(answer(request), delay=seconds)


def reset(after: int = 0) -> Fault:
    """Reset the connection after so many bytes of the body; with none, instead of an answer."""
    return lambda request, answer: replace(answer(request), sent=after, resets=True)


def cut_off(after: int) -> Fault:
    """Close the connection after so many bytes of the body."""
    return lambda request, answer: replace(answer(request), sent=after)


def stall(seconds: float, after: int = 1) -> Fault:
    """Send so many bytes of the body, and nothing more for some time."""
    return lambda request, answer: replace(answer(request), sent=after, pause=seconds)


# -- answers ------------------------------------------------------------------------------------


def status(code: int, body: bytes = b"", **headers: str) -> Fault:
    """Answer with a code, whatever was asked for; `retry_after` is the header Retry-After."""
    return lambda *_: Reply(code, body=body).with_headers(**headers)


def redirect(url: str, code: int = 302) -> Fault:
    """Send the client to the same path at another place."""
    return lambda request, _: Reply(code, {"Location": f"{url}{request.target}"})


def demand(header: str, value: str) -> Fault:
    """Answer 401 to whoever does not send this header."""
    challenge = {"Www-Authenticate": 'Basic realm="exports"'}

    def fault(request: Request, answer: Answer) -> Reply:
        is_right = request.headers.get(header.lower()) == value
        return answer(request) if is_right else Reply(401, challenge)

    return fault


def demand_query(query: str) -> Fault:
    """Answer 403 to whoever does not send this query, as a signed URL has."""
    return lambda request, answer: (
        answer(request) if request.target.endswith(f"?{query}") else Reply(403)
    )


def ignore_range() -> Fault:
    """Answer with the whole file."""
    return lambda request, answer: answer(request.without("range"))


def ignore_version() -> Fault:
    """Answer whatever version of the file was asked for."""
    return lambda request, answer: answer(request.without("if-match", "if-unmodified-since"))


def ignore_version_and_range() -> Fault:
    """Answer with the whole file of whatever version."""
    headers = "range", "if-match", "if-unmodified-since"
    return lambda request, answer: answer(request.without(*headers))


def without(*headers: str) -> Fault:
    """Leave headers out of the answer, such as `etag` and `last_modified`."""
    return lambda request, answer: answer(request).with_headers(**dict.fromkeys(headers))


def with_headers(**headers: str) -> Fault:
    """Answer with other headers, such as `etag` and `content_encoding`."""
    return lambda request, answer: answer(request).with_headers(**headers)


# -- lies ---------------------------------------------------------------------------------------


def short_body(missing: int = 1) -> Fault:
    """Send fewer bytes than the range has, and their number as the length."""

    def fault(request: Request, answer: Answer) -> Reply:
        reply = answer(request)
        return replace(reply, body=reply.bytes[:-missing]) if len(reply.body) else reply

    return fault


def long_body(more: int = 1) -> Fault:
    """Send more bytes than the range has, and their number as the length."""

    def fault(request: Request, answer: Answer) -> Reply:
        reply = answer(request)
        return replace(reply, body=reply.bytes + bytes(more)) if len(reply.body) else reply

    return fault


def endless_body(file: Path) -> Fault:
    """Send a long file in place of what was asked for."""
    whole = FilePart(file, 0, file.stat().st_size)
    return lambda request, answer: replace(answer(request), body=whole)


def shifted_range(by: int) -> Fault:
    """Send another range than the one that was asked for, and say so."""

    def fault(request: Request, answer: Answer) -> Reply:
        if request.range is None:
            return answer(request)
        start, end = request.range
        moved = f"bytes={max(0, start + by)}-{end + by - 1 if end else ''}"
        return answer(replace(request, headers={**request.headers, "range": moved}))

    return fault


def _renamed_range(rename: Callable[[int, int, int], str]) -> Fault:
    def fault(request: Request, answer: Answer) -> Reply:
        reply = answer(request)
        if reply.status != 206:
            return reply
        words = reply.headers["Content-Range"].replace("-", " ").replace("/", " ").split()
        return reply.with_headers(content_range=rename(*map(int, words[1:])))

    return fault


def wrong_range(by: int = 512) -> Fault:
    """Send the right bytes, but call them another range."""
    return _renamed_range(lambda start, last, size: f"bytes {start + by}-{last + by}/{size}")


def wrong_size(by: int = 512) -> Fault:
    """Send the right bytes, but call them those of a longer file."""
    return _renamed_range(lambda start, last, size: f"bytes {start}-{last}/{size + by}")
