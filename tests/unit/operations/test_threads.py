"""Threads that share a plan do each item once, and end together, whatever goes wrong."""

from __future__ import annotations

import errno
import threading
import time
from collections.abc import Callable, Iterator
from threading import Event, Thread

import pytest

from vhdx2raw.operations.threads import share_work

PATIENCE = 30
"""Seconds; how long a test waits for what must happen, before it fails."""


class Failure(Exception):  # noqa: N818 - not an error of anybody
    pass


def no_progress() -> None:
    pass


def doing(do: Callable[[int], None]) -> Callable[[], Callable[[int], None]]:
    return lambda: do


def wait_for(event: Event) -> None:
    assert event.wait(PATIENCE), "what was waited for never happened"


@pytest.mark.parametrize("count", [1, 2, 7])
def test_each_item_is_done_once(count: int) -> None:
    done: list[int] = []
    share_work(iter(range(200)), doing(done.append), count, no_progress)
    assert sorted(done) == list(range(200))


def test_one_thread_takes_the_items_in_their_order() -> None:
    done: list[int] = []
    share_work(iter(range(20)), doing(done.append), 1, no_progress)
    assert done == list(range(20))


def test_an_empty_plan_is_done_at_once() -> None:
    done: list[int] = []
    share_work(iter([]), doing(done.append), 3, no_progress)
    assert done == []


def test_as_many_threads_as_asked_for_work_at_the_same_time() -> None:
    together = threading.Barrier(4)
    share_work(iter(range(4)), doing(lambda _: ignore(together.wait(PATIENCE))), 4, no_progress)
    assert not together.broken


def ignore(_: int) -> None:
    pass


def test_each_thread_starts_its_own_worker_once() -> None:
    starters: list[Thread] = []
    together = threading.Barrier(3)

    def start_worker() -> Callable[[int], None]:
        starters.append(threading.current_thread())
        together.wait(PATIENCE)
        return ignore

    share_work(iter(range(30)), start_worker, 3, no_progress)
    assert len(starters) == len(set(starters)) == 3
    assert threading.current_thread() not in starters


def test_the_plan_is_taken_from_by_one_thread_at_a_time() -> None:
    def plan() -> Iterator[int]:
        for item in range(50):
            time.sleep(0.001)  # others may run now; a generator refuses to be entered twice
            yield item

    done: list[int] = []
    share_work(plan(), doing(done.append), 8, no_progress)
    assert sorted(done) == list(range(50))


def test_progress_is_told_again_and_again_by_the_caller_while_there_is_work() -> None:
    told: list[Thread] = []
    often = Event()

    def tell_progress() -> None:
        told.append(threading.current_thread())
        if len(told) == 3:
            often.set()

    share_work(iter([0]), doing(lambda _: wait_for(often)), 2, tell_progress)
    assert set(told) == {threading.current_thread()}


def test_the_caller_sleeps_until_a_thread_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """And wakes up then, however long it might sleep."""
    monkeypatch.setattr(workers, "PROGRESS_SECONDS", 3600)
    told: list[int] = []
    plan, pause = iter(range(20)), Event()
    caller = Thread(
        target=share_work,
        args=(plan, doing(lambda _: ignore(pause.wait(0.01))), 2, lambda: told.append(1)),
        daemon=True,
    )
    caller.start()
    caller.join(PATIENCE)
    assert not caller.is_alive()
    assert len(told) <= 2


def test_a_failure_stops_the_caller_while_other_threads_still_work(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(workers, "PROGRESS_SECONDS", 3600)
    stopped, begun = Event(), Event()
    stop = threads._Crew.stop

    def stop_seen(crew: threads._Crew[int]) -> None:
        stop(crew)
        stopped.set()

    monkeypatch.setattr(threads._Crew, "stop", stop_seen)
    seen: list[tuple[int, bool]] = []

    def do(item: int) -> None:
        if item == 0:
            wait_for(begun)
            raise Failure("first")
        begun.set()
        seen.append((item, stopped.wait(PATIENCE)))

    with pytest.raises(Failure, match="first"):
        share_work(iter(range(100)), doing(do), 2, no_progress)
    assert seen == [(1, True)]


def test_a_failure_of_an_item_ends_the_work_of_all() -> None:
    taken: list[int] = []

    def do(item: int) -> None:
        taken.append(item)
        if item == 5:
            raise Failure("item 5")

    with pytest.raises(Failure, match="item 5"):
        share_work(iter(range(100)), doing(do), 1, no_progress)
    assert taken == [0, 1, 2, 3, 4, 5]


def test_a_failure_of_the_plan_is_raised() -> None:
    def plan() -> Iterator[int]:
        yield 0
        raise Failure("no more plans")

    done: list[int] = []
    with pytest.raises(Failure, match="no more plans"):
        share_work(plan(), doing(done.append), 2, no_progress)
    assert done == [0]


def test_a_worker_that_cannot_be_started_is_a_failure() -> None:
    def start_worker() -> Callable[[int], None]:
        raise Failure("no buffer")

    with pytest.raises(Failure, match="no buffer"):
        share_work(iter(range(3)), start_worker, 2, no_progress)


@pytest.mark.parametrize("failure", [KeyboardInterrupt, SystemExit, MemoryError])
def test_no_failure_of_a_thread_is_lost(failure: type[BaseException]) -> None:
    def do(_: int) -> None:
        raise failure

    with pytest.raises(failure):
        share_work(iter([0]), doing(do), 1, no_progress)


def test_the_first_of_two_failures_is_raised() -> None:
    first_thread: list[Thread] = []
    both_at_work = threading.Barrier(2)

    def do(item: int) -> None:
        if item == 0:
            first_thread.append(threading.current_thread())
        both_at_work.wait(PATIENCE)
        if item == 1:
            first_thread[0].join(PATIENCE)
        raise Failure(f"item {item}")

    with pytest.raises(Failure, match="item 0"):
        share_work(iter(range(2)), doing(do), 2, no_progress)


def test_a_failure_of_progress_ends_the_work_after_the_items_at_hand() -> None:
    """So does Ctrl-C, which Python raises in the thread that waits."""
    interrupted = Event()
    begun: list[int] = []
    done: list[int] = []

    def do(item: int) -> None:
        begun.append(item)
        wait_for(interrupted)
        done.append(item)

    def tell_progress() -> None:
        interrupted.set()
        raise KeyboardInterrupt

    before = threading.active_count()
    with pytest.raises(KeyboardInterrupt):
        share_work(endless(), doing(do), 2, tell_progress)
    assert threading.active_count() == before
    assert sorted(done) == sorted(begun)


def endless() -> Iterator[int]:
    """More than can ever be done."""
    item = 0
    while True:
        yield item
        item += 1


def test_a_host_without_another_thread_is_a_host_that_fails(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What runs already is stopped, and nobody waits for a thread that never ran."""
    start = Thread.start
    started: list[Thread] = []

    def start_two(thread: Thread) -> None:
        if len(started) == 2:
            raise RuntimeError("can't start new thread")
        started.append(thread)
        start(thread)

    monkeypatch.setattr(Thread, "start", start_two)
    with pytest.raises(OSError, match="can't start new thread") as caught:
        share_work(endless(), doing(ignore), 4, no_progress)
    assert caught.value.errno == errno.EAGAIN
    assert len(started) == 2
    assert not any(thread.is_alive() for thread in started)


def test_every_thread_has_ended_when_a_failure_is_raised() -> None:
    at_work: list[Thread] = []
    both = threading.Barrier(2)
    noticed = Event()

    def do(item: int) -> None:
        at_work.append(threading.current_thread())
        both.wait(PATIENCE)
        if item == 0:
            raise Failure("item 0")
        noticed.wait(0.3)  # nobody sets it: an item that takes a while

    with pytest.raises(Failure, match="item 0"):
        share_work(iter(range(2)), doing(do), 2, no_progress)
    assert len(at_work) == 2
    assert not any(thread.is_alive() for thread in at_work)
