"""Work that threads do ahead of the one who takes its results."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from concurrent.futures import Future

Item = TypeVar("Item")
Result = TypeVar("Result")


def map_ahead(
    function: Callable[[Item], Result], items: Iterable[Item], threads: int
) -> Generator[Result, None, None]:
    """Yield `function` of each item, in the order of the items, computed by threads.

    The items are taken in the calling thread, and at most one result for each thread waits to be
    taken, so memory is bounded. Close the generator unless it ends by itself: that waits for the
    threads.

    Raises:
        BaseException: What `function` raised, in its turn.
    """
    # Most runs have no need of it, and it takes a while to load.
    from concurrent.futures import ThreadPoolExecutor  # noqa: PLC0415

    waiting: deque[Future[Result]] = deque()
    with ThreadPoolExecutor(threads) as pool:
        try:
            for item in items:
                waiting.append(pool.submit(function, item))
                if len(waiting) > threads:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
