"""Threads that share one plan: each takes the next item when it is done with the one before."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from threading import Condition, Thread
from typing import Generic, TypeVar

from vhdx2raw.progress import PROGRESS_SECONDS

Item = TypeVar("Item")


def share_work(
    plan: Iterator[Item],
    start_worker: Callable[[], Callable[[Item], None]],
    count: int,
    tell_progress: Callable[[], None],
) -> None:
    """Let `count` threads work on a plan until nothing is left of it.

    The first failure, of a thread, of the plan or of `tell_progress`, ends the work of all and is
    raised when every thread has ended. A host that has no more threads gives an `OSError`.

    Args:
        plan: What is to be done; taken from by one thread at a time.
        start_worker: Called once in each thread; returns what does one item.
        count: How many threads.
        tell_progress: Called from this thread about ten times a second.
    """
    crew = _Crew(plan, start_worker, count)
    threads = [Thread(target=crew.work) for _ in range(count)]
    try:
        for thread in threads:
            _start(thread)
        while crew.is_running():
            tell_progress()
    finally:
        crew.stop()
        for thread in threads:
            if thread.ident is not None:  # one that could not be started cannot be joined
                thread.join()
    if crew.failure:
        raise crew.failure


def _start(thread: Thread) -> None:
    try:
        thread.start()
    except RuntimeError as error:  # how Python tells that the host has no more threads
        raise OSError(errno.EAGAIN, str(error)) from error


class _Crew(Generic[Item]):
    """What the threads share: the plan, and the fate of the work."""

    def __init__(
        self, plan: Iterator[Item], start_worker: Callable[[], Callable[[Item], None]], count: int
    ) -> None:
        self.failure: BaseException | None = None
        self._plan = plan
        self._start_worker = start_worker
        self._changed = Condition()
        self._working = count
        self._stopping = False

    def is_running(self) -> bool:
        """Wait a little, and tell whether there still is something to wait for."""
        with self._changed:
            if self._working and not self.failure:
                self._changed.wait(PROGRESS_SECONDS)
            return self._working > 0 and not self.failure

    def stop(self) -> None:
        """Let no thread take another item."""
        self._stopping = True

    def work(self) -> None:
        """Take items until none is left or the work is over: what each thread does."""
        failure: BaseException | None = None
        try:
            do = self._start_worker()
            while (item := self._next_item()) is not None:
                do(item)
        except BaseException as error:  # noqa: BLE001 - raised again by the thread that waits
            failure = error
        with self._changed:
            self._working -= 1
            self.failure = self.failure or failure
            self._stopping = self._stopping or failure is not None
            self._changed.notify()

    def _next_item(self) -> Item | None:
        with self._changed:
            return None if self._stopping else next(self._plan, None)
