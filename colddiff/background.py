"""Background work that must not block the training loop: one-thread executor, prefetcher."""

from __future__ import annotations

import contextvars
import queue
import threading
import weakref
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from typing import Generic, ParamSpec, TypeAlias, TypeVar

T = TypeVar("T")
P = ParamSpec("P")

CLOSE_S = 10.0
"""How long closing a prefetcher waits for the item in progress."""


def in_context(work: Callable[P, T]) -> Callable[P, T]:
    """``work`` for another thread, in a copy of the caller's context: it has the job's log."""
    context = contextvars.copy_context()

    def run(*args: P.args, **kwargs: P.kwargs) -> T:
        return context.run(work, *args, **kwargs)

    return run


class Background:
    """Runs one piece of work at a time in a thread; its error is raised at the next call.

    ``failed`` shows an error earlier, without raising it.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None

    def busy(self, wait_s: float = 0.0) -> bool:
        """Whether work is still in progress, after waiting at most ``wait_s`` seconds for it."""
        if self._thread is None:
            return False
        self._thread.join(timeout=wait_s)
        return self._thread.is_alive()

    @property
    def failed(self) -> bool:
        """Whether the next call will raise the error of the last piece of work."""
        return self._error is not None

    def submit(self, work: Callable[[], None]) -> None:
        """Starts ``work`` once the previous piece has finished; raises the previous one's error."""
        self.wait()

        def run() -> None:
            try:
                work()
            except BaseException as error:  # re-raised in the owner's next call
                self._error = error

        self._thread = threading.Thread(target=in_context(run), name=self._name, daemon=True)
        self._thread.start()

    def wait(self) -> None:
        """Returns when no work is in progress; raises the error of the last piece."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        error, self._error = self._error, None
        if error is not None:
            raise error


class Prefetcher(Generic[T]):
    """Iterates ``source`` in a thread; at most ``depth`` items are ready while the next is made.

    Items keep their order, and an error of the source is raised in place of its item. The thread
    ends with the source, on ``close``, or when the prefetcher is garbage collected; it then closes
    a source that is a generator.
    """

    def __init__(self, source: Iterator[T], depth: int = 2, name: str = "prefetch") -> None:
        self._made: queue.SimpleQueue[_Made[T]] = queue.SimpleQueue()
        self._room = threading.Semaphore(depth + 1)
        self._ended = False
        closed = threading.Event()
        # The thread holds no reference to this object, or it would never be collected.
        self._thread = threading.Thread(
            target=in_context(_fill),
            args=(source, self._made, self._room, closed),
            name=name,
            daemon=True,
        )
        self._stop = weakref.finalize(self, _stop, self._room, closed)
        self._thread.start()

    def __iter__(self) -> Iterator[T]:
        return self

    def __next__(self) -> T:
        if self._ended:
            raise StopIteration
        made = self._made.get()
        if isinstance(made, _End):
            self._ended = True
            raise made.reason
        self._room.release()
        return made.item

    def close(self) -> None:
        """Ends the thread; items that were not consumed are dropped."""
        self._ended = True
        self._stop()
        self._thread.join(timeout=CLOSE_S)


@dataclass(frozen=True, slots=True)
class _Item(Generic[T]):
    item: T


@dataclass(frozen=True, slots=True)
class _End:
    reason: BaseException


_Made: TypeAlias = _Item[T] | _End


def _fill(
    source: Iterator[T],
    made: queue.SimpleQueue[_Made[T]],
    room: threading.Semaphore,
    closed: threading.Event,
) -> None:
    reason: BaseException = StopIteration()
    try:
        while True:
            room.acquire()
            if closed.is_set():
                break
            made.put(_Item(next(source)))
    except BaseException as error:  # re-raised in the consumer's thread
        reason = error
    try:
        if isinstance(source, Generator):
            source.close()
    except BaseException as error:
        reason = error
    made.put(_End(reason))


def _stop(room: threading.Semaphore, closed: threading.Event) -> None:
    closed.set()
    room.release()  # wakes a thread that waits for room
