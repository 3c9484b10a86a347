"""Threads that share work: each item is done once, and all end together after any failure."""

from __future__ import annotations

import errno
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from itertools import count as endless
from threading import Event, Thread, current_thread

import pytest

from vhdx2raw.operations import threads
from vhdx2raw.operations.threads import map_ahead, share_work

PATIENCE = 30
"""Seconds; how long a test waits for what must happen, before it fails."""


class Failure(Exception):  # noqa: N818 - of no use but to be recognized
    pass


def no_progress() -> None:
    pass


def doing(do: Callable[[int], None]) -> Callable[[], Callable[[int], None]]:
    return lambda: do


def ignore(_: int) -> None:
    pass


def wait_for(event: Event) -> None:
    assert event.wait(PATIENCE), "the event never happened"


def has_length(items: list[int], length: int) -> bool:
    return len(items) == length


def eventually(is_true: Callable[[], bool]) -> None:
    """Wait until a condition holds that other threads make true."""
    deadline = time.monotonic() + PATIENCE
    while not is_true():
        assert time.monotonic() < deadline, "the condition never held"
        time.sleep(0.001)


@pytest.fixture
def few_threads(monkeypatch: pytest.MonkeyPatch) -> list[Thread]:
    """Let only two threads start, and give those that did."""
    start = Thread.start
    started: list[Thread] = []

    def start_two(thread: Thread) -> None:
        if len(started) == 2:
            raise RuntimeError("can't start new thread")
        started.append(thread)
        start(thread)

    monkeypatch.setattr(Thread, "start", start_two)
    return started


# -- share_work ----------------------------------------------------------------------------------


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


def test_share_work_uses_all_threads() -> None:
    together = threading.Barrier(4)
    share_work(iter(range(4)), doing(lambda _: ignore(together.wait(PATIENCE))), 4, no_progress)
    assert not together.broken


def test_each_thread_starts_its_own_worker_once() -> None:
    starters: list[Thread] = []
    together = threading.Barrier(3)

    def start_worker() -> Callable[[int], None]:
        starters.append(current_thread())
        together.wait(PATIENCE)
        return ignore

    share_work(iter(range(30)), start_worker, 3, no_progress)
    assert len(starters) == len(set(starters)) == 3
    assert current_thread() not in starters


def test_plan_is_used_by_one_thread_at_a_time() -> None:
    def plan() -> Iterator[int]:
        for item in range(50):
            time.sleep(0.001)  # others may run now; a generator refuses to be entered twice
            yield item

    done: list[int] = []
    share_work(plan(), doing(done.append), 8, no_progress)
    assert sorted(done) == list(range(50))


@pytest.mark.slow
def test_progress_is_reported_from_the_calling_thread() -> None:
    callers: list[Thread] = []
    often = Event()

    def report_progress() -> None:
        callers.append(current_thread())
        if len(callers) == 3:
            often.set()

    share_work(iter([0]), doing(lambda _: wait_for(often)), 2, report_progress)
    assert set(callers) == {current_thread()}


def test_the_caller_sleeps_until_a_thread_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """And wakes up then, however long it might sleep."""
    monkeypatch.setattr(threads, "PROGRESS_SECONDS", 3600)
    calls: list[int] = []
    plan, pause = iter(range(20)), Event()
    caller = Thread(
        target=share_work,
        args=(plan, doing(lambda _: ignore(pause.wait(0.01))), 2, lambda: calls.append(1)),
        daemon=True,
    )
    caller.start()
    caller.join(PATIENCE)
    assert not caller.is_alive()
    assert len(calls) <= 2


def test_failure_stops_the_work_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(threads, "PROGRESS_SECONDS", 3600)
    stopped, begun = Event(), Event()
    stop = threads._Crew.stop

    def stop_seen(crew: threads._Crew[int]) -> None:
        stopped.set()
        stop(crew)

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


def test_failing_item_ends_the_work() -> None:
    taken: list[int] = []

    def do(item: int) -> None:
        taken.append(item)
        if item == 5:
            raise Failure("item 5")

    with pytest.raises(Failure, match="item 5"):
        share_work(iter(range(100)), doing(do), 1, no_progress)
    assert taken == [0, 1, 2, 3, 4, 5]


def test_failing_plan_is_raised() -> None:
    def plan() -> Iterator[int]:
        yield 0
        raise Failure("no more plans")

    done: list[int] = []
    with pytest.raises(Failure, match="no more plans"):
        share_work(plan(), doing(done.append), 2, no_progress)
    assert done == [0]


def test_failing_start_of_a_worker_is_raised() -> None:
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
            first_thread.append(current_thread())
        both_at_work.wait(PATIENCE)
        if item == 1:
            first_thread[0].join(PATIENCE)
        raise Failure(f"item {item}")

    with pytest.raises(Failure, match="item 0"):
        share_work(iter(range(2)), doing(do), 2, no_progress)


def test_failing_progress_ends_the_work() -> None:
    """So does Ctrl-C, which Python raises in the thread that waits."""
    interrupted = Event()
    begun: list[int] = []
    done: list[int] = []

    def do(item: int) -> None:
        begun.append(item)
        wait_for(interrupted)
        done.append(item)

    def report_progress() -> None:
        interrupted.set()
        raise KeyboardInterrupt

    before = threading.active_count()
    with pytest.raises(KeyboardInterrupt):
        share_work(endless(), doing(do), 2, report_progress)
    assert threading.active_count() == before
    assert sorted(done) == sorted(begun)


def test_share_work_without_threads_is_an_os_error(few_threads: list[Thread]) -> None:
    """The threads that run already are stopped, and none that never ran is waited for."""
    with pytest.raises(OSError, match="can't start new thread") as caught:
        share_work(endless(), doing(ignore), 4, no_progress)
    assert caught.value.errno == errno.EAGAIN
    assert len(few_threads) == 2
    assert not any(thread.is_alive() for thread in few_threads)


@pytest.mark.slow
def test_threads_have_ended_when_a_failure_is_raised() -> None:
    at_work: list[Thread] = []
    both = threading.Barrier(2)
    noticed = Event()

    def do(item: int) -> None:
        at_work.append(current_thread())
        both.wait(PATIENCE)
        if item == 0:
            raise Failure("item 0")
        noticed.wait(0.3)  # never set: an item that takes a while

    with pytest.raises(Failure, match="item 0"):
        share_work(iter(range(2)), doing(do), 2, no_progress)
    assert len(at_work) == 2
    assert not any(thread.is_alive() for thread in at_work)


# -- map_ahead -----------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 2, 5])
def test_results_come_in_the_order_of_the_items(count: int) -> None:
    def slow_if_even(number: int) -> int:
        time.sleep(0.002 * (number % 2 == 0))
        return number * number

    assert list(map_ahead(slow_if_even, range(30), count)) == [n * n for n in range(30)]


def test_a_result_waits_for_those_before_it() -> None:
    later_ones = Event()

    def function(number: int) -> int:
        if number == 0:
            wait_for(later_ones)
        elif number == 2:
            later_ones.set()
        return number

    assert list(map_ahead(function, range(6), 2)) == list(range(6))


def test_no_items_give_no_results() -> None:
    assert list(map_ahead(abs, [], 3)) == []


def test_no_thread_starts_before_the_first_next() -> None:
    before = threading.active_count()
    begun: list[int] = []
    results = map_ahead(begun.append, range(3), 2)
    assert (begun, threading.active_count()) == ([], before)
    results.close()
    assert begun == []


def test_map_ahead_uses_all_threads() -> None:
    together = threading.Barrier(4)

    def thread_of(_: int) -> Thread:
        together.wait(PATIENCE)
        return current_thread()

    assert len({*map_ahead(thread_of, range(4), 4), current_thread()}) == 5


@pytest.mark.parametrize("count", [1, 2, 5])
def test_one_result_per_thread_is_computed_ahead(count: int) -> None:
    """And one item more is at hand in each thread."""
    begun: list[int] = []
    taken: list[int] = []

    def items() -> Iterator[int]:
        for number in endless():
            taken.append(number)
            yield number

    with closing(map_ahead(begun.append, items(), count)) as results:
        for limit, _ in zip(range(1 + count, 20), results, strict=False):
            eventually(partial(has_length, begun, limit))
            time.sleep(0.001)  # for one that would go on
            assert has_length(begun, limit)
            assert len(taken) <= limit + count


def test_failing_item_is_raised_in_its_turn() -> None:
    failed = Event()

    def function(number: int) -> int:
        if number == 1:
            failed.set()
            raise Failure("item 1")
        if number == 0:
            wait_for(failed)
        return number

    results = map_ahead(function, endless(), 2)
    assert next(results) == 0
    with pytest.raises(Failure, match="item 1"):
        next(results)
    assert list(results) == []


@pytest.mark.parametrize("failure", [KeyboardInterrupt, SystemExit, MemoryError])
def test_no_failure_of_an_item_is_lost(failure: type[BaseException]) -> None:
    def function(_: int) -> None:
        raise failure

    with pytest.raises(failure):
        list(map_ahead(function, range(3), 2))


@pytest.mark.parametrize("count", [1, 3])
def test_failing_items_raise_after_the_results(count: int) -> None:
    def items() -> Iterator[int]:
        yield from range(5)
        raise Failure("no more items")

    results = map_ahead(abs, items(), count)
    assert [next(results) for _ in range(5)] == list(range(5))
    with pytest.raises(Failure, match="no more items"):
        next(results)


@pytest.mark.parametrize("count", [1, 3])
def test_closing_early_ends_the_threads(count: int) -> None:
    """Once what is at work is done; nothing else is begun."""
    begun: list[int] = []
    done: list[int] = []
    closing_now = Event()

    def function(number: int) -> int:
        begun.append(number)
        if number > 0:
            wait_for(closing_now)
            time.sleep(0.01)
        done.append(number)
        return number

    before = threading.active_count()
    results = map_ahead(function, endless(), count)
    assert next(results) == 0
    eventually(partial(has_length, begun, 1 + count))
    closing_now.set()
    results.close()
    assert threading.active_count() == before
    assert sorted(done) == sorted(begun) == list(range(1 + count))
    assert list(results) == []


def test_waiting_items_are_dropped_on_close() -> None:
    begun: list[int] = []
    taken: list[int] = []

    def items() -> Iterator[int]:
        for number in range(100):
            taken.append(number)
            yield number

    results = map_ahead(begun.append, items(), 2)
    next(results)
    eventually(partial(has_length, taken, 5))
    results.close()
    assert sorted(begun) == [0, 1, 2]


def test_failing_consumer_ends_the_threads() -> None:
    def consume() -> None:
        with closing(map_ahead(abs, endless(), 3)) as results:
            for number in results:
                if number == 4:
                    raise Failure("full")

    before = threading.active_count()
    with pytest.raises(Failure, match="full"):
        consume()
    assert threading.active_count() == before


def test_map_ahead_without_threads_is_an_os_error(few_threads: list[Thread]) -> None:
    with pytest.raises(OSError, match="can't start new thread") as caught:
        list(map_ahead(abs, endless(), 4))
    assert caught.value.errno == errno.EAGAIN
    assert len(few_threads) == 2
    assert not any(thread.is_alive() for thread in few_threads)
