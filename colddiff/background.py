"""Work that must not hold the training loop up: a checkpoint writer and a batch prefetcher."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

T = TypeVar("T")


class Background:
    """One thread doing one piece of work at a time; its error is raised at the next call.

    ``failed`` tells of an error before that, so that nobody has to wait for the next call.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None

    def busy(self, wait_s: float = 0.0) -> bool:
        """Whether a piece of work is still under way after at most ``wait_s`` seconds."""
        if self._thread is None:
            return False
        self._thread.join(timeout=wait_s)
        return self._thread.is_alive()

    @property
    def failed(self) -> bool:
        """Whether the next call will raise what the last piece raised."""
        return self._error is not None

    def submit(self, work: Callable[[], None]) -> None:
        """Starts ``work`` once the piece before it is finished."""
        self.wait()

        def run() -> None:
            try:
                work()
            except BaseException as error:  # raised where the owner waits
                self._error = error

        self._thread = threading.Thread(target=run, name=self._name, daemon=True)
        self._thread.start()

    def wait(self) -> None:
        """Returns when nothing is under way; raises what the last piece raised."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        error, self._error = self._error, None
        if error is not None:
            raise error


class Prefetcher(Generic[T]):
    """Iterates ``source`` in a thread, at most ``depth`` items ahead."""

    def __init__(self, source: Iterator[T], depth: int = 2) -> None:
        self._queue: queue.Queue[T | BaseException] = queue.Queue(depth)
        self._closed = threading.Event()
        self._thread = threading.Thread(
            target=self._fill, args=(source,), name="prefetch", daemon=True
        )
        self._thread.start()

    def _fill(self, source: Iterator[T]) -> None:
        try:
            for item in source:
                if not self._offer(item):
                    return
            self._offer(StopIteration())
        except BaseException as error:  # raised in the consumer's thread
            self._offer(error)

    def _offer(self, item: T | BaseException) -> bool:
        while not self._closed.is_set():
            try:
                self._queue.put(item, timeout=0.1)
            except queue.Full:
                continue
            return True
        return False

    def __iter__(self) -> Iterator[T]:
        return self

    def __next__(self) -> T:
        item = self._queue.get()
        if isinstance(item, BaseException):
            raise item
        return item

    def close(self) -> None:
        """Ends the thread; items not taken are dropped."""
        self._closed.set()
        self._thread.join(timeout=10)
