"""Retry with backoff: how long to pause after each failure, and loops that do."""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeVar

from colddiff.errors import ColddiffError, Unreachable

log = logging.getLogger(__name__)

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Backoff:
    """Pauses that grow: ``first_s``, then ``factor`` times the one before, up to ``longest_s``."""

    first_s: float
    longest_s: float
    factor: float = 2.0
    jitter: float = 0.0
    """Up to this share of a pause is left out by chance, so that many workers spread out."""

    def pause_s(self, failures: int) -> float:
        """How long to wait after that many failures in a row; 0 after none."""
        if failures < 1:
            return 0.0
        # No pause needs more doublings than these, and a float ends after 1024.
        grown = self.first_s * self.factor ** min(failures - 1, 64)
        return min(grown, self.longest_s) * (1.0 - self.jitter * random.random())

    def attempts(self, most: int, *, sleep: Callable[[float], None] = time.sleep) -> Iterator[int]:
        """1, 2, ... ``most``, with the pause that is due before each but the first."""
        for attempt in range(1, most + 1):
            if attempt > 1:
                sleep(self.pause_s(attempt - 1))
            yield attempt


SERVICE = Backoff(first_s=0.5, longest_s=30.0)
"""For a service that may be away for a while."""


def patiently(
    work: Callable[[], T],
    what: str,
    patience_s: float,
    *,
    on_retry: Callable[[], None] = lambda: None,
    sleep: Callable[[float], None] = time.sleep,
) -> T:
    """What ``work()`` returns, called again while it raises Unreachable, for ``patience_s``.

    Each failure is logged with ``what`` was tried; ``on_retry`` is called after each. Raises
    ColddiffError naming the last one when the time is up; any other error of ``work`` at once.
    """
    deadline = time.monotonic() + patience_s
    failures = 0
    while True:
        try:
            return work()
        except Unreachable as error:
            left = deadline - time.monotonic()
            if left <= 0:
                raise ColddiffError(
                    f"{what}: gave up after {patience_s:g} s of trying: {error}"
                ) from error
            failures += 1
            # The last try comes when the time is up, however long the pause would have been.
            pause = min(SERVICE.pause_s(failures), left)
            log.warning("%s: %s; retrying in %.1f s, for %.0f s more", what, error, pause, left)
            on_retry()
            sleep(pause)
