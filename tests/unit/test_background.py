"""Work beside the training loop: one prefetcher, whose order, depth, errors and end are held."""

from __future__ import annotations

import gc
import threading
import time
from collections.abc import Callable, Iterator
from itertools import count

import pytest

from colddiff.background import Prefetcher


def eventually(is_so: Callable[[], object], timeout_s: float = 10.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not is_so():
        assert time.monotonic() < deadline, "not in time"
        time.sleep(0.005)


def running(name: str) -> bool:
    return any(thread.name == name for thread in threading.enumerate())


def test_items_come_in_their_order_and_then_end_for_good() -> None:
    prefetcher = Prefetcher(iter(range(100)), depth=3)
    assert list(prefetcher) == list(range(100))
    # The end does not wait for a thread that is gone.
    assert next(prefetcher, None) is None
    assert next(prefetcher, None) is None


def test_an_error_of_the_source_is_raised_in_the_consumer_after_what_came_before() -> None:
    def broken() -> Iterator[int]:
        yield 1
        yield 2
        raise ValueError("shard 3 is damaged")

    prefetcher = Prefetcher(broken(), depth=4)
    assert (next(prefetcher), next(prefetcher)) == (1, 2)
    with pytest.raises(ValueError, match="shard 3 is damaged"):
        next(prefetcher)
    assert next(prefetcher, None) is None


@pytest.mark.parametrize("depth", [1, 3])
def test_no_more_than_the_depth_waits_while_one_is_made(depth: int) -> None:
    made: list[int] = []

    def counting() -> Iterator[int]:
        for number in count():
            made.append(number)
            yield number

    prefetcher = Prefetcher(counting(), depth=depth)
    for taken in range(4):
        eventually(lambda taken=taken: len(made) == taken + depth + 1)  # type: ignore[misc]
        time.sleep(0.02)
        assert len(made) == taken + depth + 1
        assert next(prefetcher) == taken
    prefetcher.close()


def test_close_ends_the_thread_and_closes_the_source() -> None:
    closed: list[str] = []

    def endless() -> Iterator[int]:
        try:
            yield from count()
        finally:
            closed.append(threading.current_thread().name)

    prefetcher = Prefetcher(endless(), depth=2, name="closed-here")
    assert next(prefetcher) == 0
    prefetcher.close()
    assert not running("closed-here")
    assert closed == ["closed-here"]
    assert next(prefetcher, None) is None
    prefetcher.close()


def test_a_prefetcher_that_nobody_holds_ends_its_thread() -> None:
    prefetcher = Prefetcher(count(), depth=2, name="dropped")
    assert next(prefetcher) == 0
    assert running("dropped")
    del prefetcher
    gc.collect()
    eventually(lambda: not running("dropped"))


def test_the_source_is_iterated_by_one_thread_of_the_given_name() -> None:
    def names() -> Iterator[str]:
        for _ in range(5):
            yield threading.current_thread().name

    assert set(Prefetcher(names(), name="mine")) == {"mine"}
