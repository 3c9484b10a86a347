"""Threads that share one plan: each takes the next item when it is done with the one before."""

from __future__ import annotations

import errno
from collections.abc import Callable, Generator, Iterable, Iterator
from threading import Condition, Thread
from typing import Generic, TypeVar

from vhdx2raw.operations.progress import PROGRESS_SECONDS

Item = TypeVar("Item")
Result = TypeVar("Result")


def _nothing() -> None:
    """Do nothing."""


def share_work(
    plan: Iterator[Item],
    start_worker: Callable[[], Callable[[Item], None]],
    count: int,
    report_progress: Callable[[], None],
    cancel: Callable[[], None] = _nothing,
) -> None:
    """Let `count` threads work on a plan until nothing is left of it.

    The first failure, of a thread, of the plan or of `report_progress`, ends the work of all and
    is raised when every thread has ended. A host that has no more threads gives an `OSError`.

    Args:
        plan: What is to be done; taken from by one thread at a time.
        start_worker: Called once in each thread; returns what does one item.
        count: How many threads.
        report_progress: Called from this thread about ten times a second.
        cancel: Ends what a thread waits for, after a failure.
    """
    crew = _Crew(plan, start_worker, count, cancel)
    try:
        crew.start()
        while crew.is_running():
            report_progress()
    finally:
        crew.stop()
    if crew.failure:
        raise crew.failure


def map_ahead(
    function: Callable[[Item], Result],
    items: Iterable[Item],
    count: int,
    cancel: Callable[[], None] = _nothing,
) -> Generator[Result, None, None]:
    """Yield `function` of each item, in the order of the items, computed by `count` threads.

    At most one result for each thread waits to be taken, so memory is bounded. Close the
    generator unless it ends by itself: that waits for the threads, and calls `cancel`, which ends
    what they wait for.

    Raises:
        BaseException: What `function` raised, in its turn, or what `items` raised.
        OSError: The host has no more threads.
    """
    results: dict[int, Result | _Failure] = {}
    taken = 0
    is_closed = False

    def work(numbered: tuple[int, Item]) -> None:
        number, item = numbered
        with crew.changed:
            crew.changed.wait_for(lambda: number <= taken + count or crew.stopping)
        if is_closed:
            return
        result: Result | _Failure
        try:
            result = function(item)
        except BaseException as error:  # noqa: BLE001 - raised again when its turn comes
            result = _Failure(error)
        with crew.changed:
            results[number] = result
            crew.changed.notify_all()

    def result_is_there() -> bool:
        return taken in results or not crew.working

    crew = _Crew(enumerate(items), lambda: work, count, cancel)
    try:
        crew.start()
        while True:
            with crew.changed:
                crew.changed.wait_for(result_is_there)
                if taken not in results:
                    break
                result = results.pop(taken)
            if isinstance(result, _Failure):
                raise result.error
            yield result
            with crew.changed:
                taken += 1
                crew.changed.notify_all()
    finally:
        is_closed = True
        crew.stop()
    if crew.failure:
        raise crew.failure


class _Failure:
    """An exception in the place of a result."""

    def __init__(self, error: BaseException) -> None:
        self.error = error


class _Crew(Generic[Item]):
    """What the threads share: the plan, and the fate of the work."""

    def __init__(
        self,
        plan: Iterator[Item],
        start_worker: Callable[[], Callable[[Item], None]],
        count: int,
        cancel: Callable[[], None],
    ) -> None:
        self.failure: BaseException | None = None
        self.changed = Condition()
        self.working = count
        self.stopping = False
        self._plan = plan
        self._start_worker = start_worker
        self._cancel = cancel
        self._threads = [Thread(target=self._work) for _ in range(count)]

    def start(self) -> None:
        try:
            for thread in self._threads:
                thread.start()
        except RuntimeError as error:  # how Python tells that the host has no more threads
            raise OSError(errno.EAGAIN, str(error)) from error

    def is_running(self) -> bool:
        """Wait a little, and return whether there still is something to wait for."""
        with self.changed:
            if self.working and not self.failure:
                self.changed.wait(PROGRESS_SECONDS)
            return self.working > 0 and not self.failure

    def stop(self) -> None:
        with self.changed:
            self.stopping = True
            self.changed.notify_all()
        for thread in self._threads:
            # One that could not be started cannot be joined; one that goes on to another read
            # is to give that up as well.
            while thread.ident is not None and thread.is_alive():
                self._cancel()
                thread.join(PROGRESS_SECONDS)

    def _work(self) -> None:
        """Take items until none is left or the work is over: what each thread does."""
        failure: BaseException | None = None
        try:
            do = self._start_worker()
            while (item := self._next_item()) is not None:
                do(item)
        except BaseException as error:  # noqa: BLE001 - raised again by the thread that waits
            failure = error
        with self.changed:
            self.working -= 1
            self.failure = self.failure or failure
            self.stopping = self.stopping or failure is not None
            self.changed.notify_all()

    def _next_item(self) -> Item | None:
        with self.changed:
            return None if self.stopping else next(self._plan, None)
