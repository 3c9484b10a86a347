"""Threads that share one plan: each takes the next item when it is done with the one before."""

from __future__ import annotations

import errno
from collections.abc import Callable, Generator, Iterable, Iterator
from threading import Condition, Event, Lock, Thread
from typing import Generic, TypeVar

from vhdx2raw.operations.progress import PROGRESS_SECONDS

Item = TypeVar("Item")
Result = TypeVar("Result")


class Ending:
    """The end of some work, for what would not notice it.

    A plan can be long without an item, as in a hole, and a thread can wait for a server.
    """

    def __init__(self, cancel: Callable[[], None] = lambda: None) -> None:
        """Let `cancel` give up what a thread waits for; it may be called more than once."""
        self.has_come = False
        self.cancel = cancel

    def until(self, items: Iterable[Item]) -> Iterator[Item]:
        """Pass items on until the work has ended."""
        for item in items:
            if self.has_come:
                return
            yield item


def share_work(
    plan: Iterator[Item],
    start_worker: Callable[[], Callable[[Item], None]],
    count: int,
    report_progress: Callable[[], None],
    ending: Ending | None = None,
) -> None:
    """Let `count` threads work on a plan until nothing is left of it.

    The first failure, of a thread, of the plan or of `report_progress`, ends the work of all and
    is raised when every thread has ended. A host that has no more threads gives an `OSError`.

    Args:
        plan: What is to be done; taken from by one thread at a time.
        start_worker: Called once in each thread; returns what does one item.
        count: How many threads.
        report_progress: Called from this thread about ten times a second.
        ending: Is told when the work ends, before the threads are waited for.
    """
    crew = _Crew(plan, start_worker, count, ending)
    try:
        crew.start()
        while not crew.wait_for(crew.has_ended):
            report_progress()
    finally:
        crew.stop()
    if crew.failure:
        raise crew.failure


def map_ahead(
    function: Callable[[Item], Result],
    items: Iterable[Item],
    count: int,
    ending: Ending | None = None,
    report_progress: Callable[[], None] = lambda: None,
) -> Generator[Result, None, None]:
    """Yield `function` of each item, in the order of the items, computed by `count` threads.

    At most one result for each thread waits to be taken, so memory is bounded. While the next one
    is not there, `report_progress` is called about ten times a second. Close the generator unless
    it ends by itself: that waits for the threads.

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

    crew = _Crew(enumerate(items), lambda: work, count, ending)
    try:
        crew.start()
        while True:
            while not crew.wait_for(result_is_there):
                report_progress()
            with crew.changed:
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


def run_aside(function: Callable[[], Result], report_progress: Callable[[], None]) -> Result:
    """Return what `function` returns, which is computed by a thread of its own.

    `report_progress` is called about ten times a second meanwhile. If it raises, the thread is left
    to itself, and does not keep the program from ending: so `function` should only read.

    Raises:
        BaseException: What one of the two raised.
        OSError: The host has no more threads.
    """
    results: list[Result | _Failure] = []
    is_done = Event()

    def work() -> None:
        try:
            results.append(function())
        except BaseException as error:  # noqa: BLE001 - raised again by the thread that waits
            results.append(_Failure(error))
        is_done.set()

    _start(Thread(target=work, daemon=True))
    while not is_done.wait(PROGRESS_SECONDS):
        report_progress()
    (result,) = results
    if isinstance(result, _Failure):
        raise result.error
    return result


def _start(thread: Thread) -> None:
    try:
        thread.start()
    except RuntimeError as error:  # how Python tells that the host has no more threads
        raise OSError(errno.EAGAIN, str(error)) from error


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
        ending: Ending | None,
    ) -> None:
        self.failure: BaseException | None = None
        self.changed = Condition()
        self.working = count
        self.stopping = False
        self._ending = ending or Ending()
        self._plan = plan
        self._planning = Lock()
        self._start_worker = start_worker
        self._threads = [Thread(target=self._work) for _ in range(count)]

    def start(self) -> None:
        for thread in self._threads:
            _start(thread)

    def wait_for(self, condition: Callable[[], bool]) -> bool:
        """Wait a little, and return whether something is so."""
        with self.changed:
            return self.changed.wait_for(condition, PROGRESS_SECONDS)

    def has_ended(self) -> bool:
        return self.working == 0 or self.failure is not None

    def stop(self) -> None:
        self._ending.has_come = True
        with self.changed:
            self.stopping = True
            self.changed.notify_all()
        for thread in self._threads:
            # One that could not be started cannot be joined; one that goes on to another read
            # is to give that up as well.
            while thread.ident is not None and thread.is_alive():
                self._ending.cancel()
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
        # Not under `changed`: the plan can take its time, and the thread that waits reports then.
        with self._planning:
            return None if self.stopping else next(self._plan, None)
