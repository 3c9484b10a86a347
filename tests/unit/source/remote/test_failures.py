"""What the texts of obstore mean, of which nothing is passed on."""

import pytest
from obstore.exceptions import (
    GenericError,
    NotSupportedError,
    PermissionDeniedError,
    PreconditionError,
    UnauthenticatedError,
)

from vhdx2raw.source.remote.failures import judge

URL = "https://me:secret@host/disk.vhdx?sig=secret"
ASKED = f"Generic HTTP error: Error performing GET {URL} in 4ms - "
ROLE = "http://169.254.169.254/latest/api/token in 4ms - Server returned error response"
STATUS = "Server returned non-2xx status code: {}: secret"
FAILURES = [
    (FileNotFoundError("secret"), "does not exist", 404, False),
    (UnauthenticatedError("secret"), "needs credentials", 401, False),
    (PermissionDeniedError("secret"), "access is denied", 403, False),
    (PreconditionError("secret"), "is another version now", 412, False),
    (NotSupportedError("secret"), "the server gives whole files only", 0, False),
    (GenericError(ASKED + STATUS.format(503)), "answered with HTTP 503", 503, True),
    (GenericError(ASKED + STATUS.format(429)), "answered with HTTP 429", 429, True),
    (GenericError(ASKED + STATUS.format(501)), "answered with HTTP 501", 501, False),
    (GenericError(ASKED + STATUS.format(416)), "answered with HTTP 416", 416, False),
    (GenericError(f"Error performing PUT {ROLE}: 503"), "needs credentials", 401, False),
    (GenericError(f"{ASKED}{STATUS.format(503)} {ROLE}"), "answered with HTTP 503", 503, True),
    (GenericError(ASKED + "tcp connect error, 127.0.0.1:0"), "is sent on to another", 403, False),
    (GenericError(ASKED + "InvalidCertificate(UnknownIssuer)"), "is not trusted", 0, False),
    (GenericError("source: UnexpectedRange {"), "gave another range", 0, False),
    (GenericError("source: NoContentRange,"), "does not say which range", 0, False),
    (GenericError("Content-Length Header missing"), "does not say how much", 0, False),
    (GenericError("inner: BareRedirect,"), "leads nowhere", 0, False),
    (GenericError(ASKED + "HttpError { kind: Timeout, TimedOut"), "timed out", 0, True),
    (GenericError(ASKED + "kind: Connect, dns error"), "unknown host", 0, True),
    (GenericError(ASKED + "kind: Connect, ConnectionRefused"), "refused", 0, True),
    (GenericError(ASKED + "kind: Connect, NetworkDown"), "there is no connection", 0, True),
    (GenericError(ASKED + "HttpError { kind: ConnectionReset"), "was cut off", 0, True),
    (GenericError("anything"), r"the request failed \(GenericError\)", 0, False),
]


@pytest.mark.parametrize(("error", "problem", "status", "is_transient"), FAILURES)
def test_failure_is_judged_by_its_text(
    error: Exception,
    problem: str,
    status: int,
    is_transient: bool,  # noqa: FBT001
) -> None:
    failure = judge(error)
    with pytest.raises(RuntimeError, match=problem):
        raise RuntimeError(failure.problem)
    assert (failure.status, failure.is_transient) == (status, is_transient)
    assert "secret" not in f"{failure}"


def test_words_of_a_url_mean_nothing() -> None:
    text = f"Error performing GET {URL}&kind: Timeout in 4ms - {STATUS.format(404)}"
    assert judge(GenericError(text)).status == 404
