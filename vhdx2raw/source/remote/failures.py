"""What a failed request means: in words, and whether to ask once more.

obstore has classes for a few failures and a text for all. The text has the whole URL with its
signature, and whatever the server wrote; so nothing of it is ever passed on.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from obstore.exceptions import (
    NotSupportedError,
    PermissionDeniedError,
    PreconditionError,
    UnauthenticatedError,
)

from vhdx2raw.source.remote.stores import CREDENTIALS_REMEDY, NOWHERE

CHANGED = 412
TRANSIENT = (408, 425, 429, 500, 502, 503, 504)
"""What a server answers that is busy, or has lost the one behind it."""
_STATUS = re.compile(r"Server returned (?:non-2xx status|error response|[a-z -]*)[^:]*: (\d{3})\b")
_URL = re.compile(r"\S+://\S+")
"""The URL of a request, whose words mean nothing here."""
_OF_ROLE = re.compile(r"performing [A-Z]+ http://(?:169\.254\.|metadata\.google\.internal)")
"""Where a machine is asked for its role, because no other credentials are there."""
CA_REMEDY = "name the certificate of a private authority with {ca_file}"
TIMEOUT_REMEDY = "try again later, perhaps with a longer {timeout} or more {retries}"


class Failure(NamedTuple):
    """What is known of a failed request.

    Attributes:
        problem: In words.
        is_transient: Whether the same request may succeed a little later.
        status: Of the answer, by HTTP, or 0.
        remedy: What can be done.
    """

    problem: str
    is_transient: bool = False
    status: int = 0
    remedy: str = ""


UNAUTHENTICATED = Failure(
    "needs credentials, and there are none, or not the right ones",
    status=401,
    remedy=CREDENTIALS_REMEDY,
)
ELSEWHERE = Failure("is sent on to another host, where only the user may send us", status=403)
_BY_TEXT = (
    (NOWHERE, ELSEWHERE),
    ("InvalidCertificate", Failure("its certificate is not trusted", remedy=CA_REMEDY)),
    ("UnexpectedRange", Failure("the server gave another range than it was asked for")),
    ("NoContentRange", Failure("the server does not say which range it gave")),
    ("Content-Length", Failure("the server does not say how much it gave")),
    ("BareRedirect", Failure("the server leads nowhere; of a bucket the region may be wrong")),
    ("kind: Timeout", Failure("timed out", is_transient=True, remedy=TIMEOUT_REMEDY)),
    ("TimedOut", Failure("timed out", is_transient=True, remedy=TIMEOUT_REMEDY)),
    ("dns error", Failure("there is no connection: unknown host", is_transient=True)),
    ("ConnectionRefused", Failure("there is no connection: refused", is_transient=True)),
    ("kind: Connect,", Failure("there is no connection", is_transient=True)),
    ("HttpError", Failure("the connection was cut off", is_transient=True)),
)
"""What stands in the text of a failure without a status, and its meaning; the first one counts."""


_BY_CLASS = (
    (FileNotFoundError, Failure("does not exist", status=404)),
    (UnauthenticatedError, UNAUTHENTICATED),
    (PermissionDeniedError, Failure("access is denied", status=403, remedy=CREDENTIALS_REMEDY)),
    (PreconditionError, Failure("is another version now", status=CHANGED)),
    (NotSupportedError, Failure("the server gives whole files only, not ranges of them")),
)


def judge(error: Exception) -> Failure:
    """Return what a failure of obstore means."""
    for kind, failure in _BY_CLASS:
        if isinstance(error, kind):
            return failure
    if _OF_ROLE.search(str(error)):
        return UNAUTHENTICATED
    text = _URL.sub("", str(error))
    if found := _STATUS.search(text):
        status = int(found[1])
        is_transient = status in TRANSIENT
        remedy = TIMEOUT_REMEDY if is_transient else ""
        return Failure(f"the server answered with HTTP {status}", is_transient, status, remedy)
    unknown = Failure(f"the request failed ({type(error).__name__})")
    return next((failure for part, failure in _BY_TEXT if part in text), unknown)
