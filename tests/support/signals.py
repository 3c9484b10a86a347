"""Programs that a signal ends."""

import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from tests.support.cli import TIMEOUT, start_program

SIGNALS = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]
SIGNAL_MESSAGES = {
    signal.SIGINT: "vhdx2raw: interrupted\n",
    signal.SIGTERM: "vhdx2raw: ended by SIGTERM\n",
    signal.SIGHUP: "vhdx2raw: ended by SIGHUP\n",
}
"""What the program prints when a signal ends it."""

Program = subprocess.Popen[bytes]


def do_nothing(_number: int, _frame: FrameType | None) -> None:
    """Take a signal in this process; in a new program it has its usual effect."""


@contextmanager
def inherited(handler: Callable[[int, FrameType | None], None] | signal.Handlers) -> Iterator[None]:
    """Let programs that are started here begin with the signals set like this."""
    previous = {number: signal.signal(number, handler) for number in SIGNALS}
    try:
        yield
    finally:
        for number, usual in previous.items():
            signal.signal(number, usual)


@contextmanager
def running(*arguments: str | Path, stdout: int = subprocess.DEVNULL) -> Iterator[Program]:
    """Run the program, and kill it if it has not ended by the end of the context."""
    with inherited(do_nothing):
        process = start_program(*arguments, "--no-clone", stdout=stdout)
    with process:
        try:
            yield process
        finally:
            if process.poll() is None:
                process.kill()


def wait_for_end(process: Program) -> tuple[int, str]:
    """Return the exit code and what was printed to stderr."""
    assert process.stderr
    process.wait(TIMEOUT)
    return process.returncode, process.stderr.read().decode()
