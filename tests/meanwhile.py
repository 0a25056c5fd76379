"""Something that is done again and again in a thread, while a test does something else."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def meanwhile(act: Callable[[], object], *, every_s: float) -> Iterator[None]:
    """Within ``with``, calls ``act`` every ``every_s`` seconds, until it returns something true."""
    ended = threading.Event()

    def repeat() -> None:
        while not ended.wait(every_s):
            if act():
                return

    thread = threading.Thread(target=repeat)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
