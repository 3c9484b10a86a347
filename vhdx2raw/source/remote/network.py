"""The threads that make requests, shared by all files that are open.

A thread that waits for a server cannot be woken. So nobody waits for such a thread for long, and it
does not keep the program from ending.
"""

from __future__ import annotations

import errno
import time
from collections.abc import Callable
from queue import SimpleQueue
from threading import Lock, Thread
from typing import ClassVar

from vhdx2raw.source.remote.cache import Cache

GRACE_SECONDS = 1.0
"""How long to wait for what is under way at the end: a thread of obstore that comes back while the
interpreter ends would take the whole process down."""


class Network:
    """As many threads as there may be requests at a time.

    Attributes:
        cache: What was read of the files.
    """

    _all: ClassVar[dict[int, Network]] = {}
    _changing: ClassVar[Lock] = Lock()

    def __init__(self, connections: int) -> None:
        self.cache = Cache()
        self._connections = connections
        self._file_count = 0
        self._tasks: SimpleQueue[Callable[[], object] | None] = SimpleQueue()
        self._threads: list[Thread] = []

    @classmethod
    def enter(cls, connections: int) -> Network:
        """Return the one that makes so many requests at a time, for a file until it leaves."""
        with cls._changing:
            network = cls._all.setdefault(connections, cls(connections))
            network._file_count += 1  # noqa: SLF001 - its own
            return network

    def leave(self) -> None:
        """End the threads after the last file."""
        with self._changing:
            self._file_count -= 1
            if self._file_count:
                return
            del self._all[self._connections]
            threads = self._threads
        for _ in threads:
            self._tasks.put(None)
        over = time.monotonic() + GRACE_SECONDS
        for thread in threads:
            thread.join(max(0, over - time.monotonic()))

    def submit(self, task: Callable[[], object]) -> None:
        """Have a thread do something, in the order in which it is given.

        Raises:
            OSError: The host has no more threads.
        """
        with self._changing:
            if len(self._threads) < self._connections:
                thread = Thread(target=self._work, daemon=True)
                try:
                    thread.start()
                except RuntimeError as error:  # how Python tells that the host has no more threads
                    if not self._threads:
                        raise OSError(errno.EAGAIN, str(error)) from error
                else:
                    self._threads.append(thread)
        self._tasks.put(task)

    def _work(self) -> None:
        while (task := self._tasks.get()) is not None:
            task()
