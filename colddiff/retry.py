"""Retry with backoff: the pause after each failure, and loops that retry."""

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
    """Exponential backoff: ``first_s``, then ``factor`` times longer each, up to ``longest_s``."""

    first_s: float
    longest_s: float
    factor: float = 2.0
    jitter: float = 0.0
    """Each pause is shortened by a random share up to this one, so that workers spread out."""

    def pause_s(self, failures: int) -> float:
        """Pause after that many consecutive failures, s; 0 after none."""
        if failures < 1:
            return 0.0
        # No pause needs more doublings than these, and a float overflows after 1024.
        grown = self.first_s * self.factor ** min(failures - 1, 64)
        return min(grown, self.longest_s) * (1.0 - self.jitter * random.random())

    def attempts(self, most: int, *, sleep: Callable[[float], None] = time.sleep) -> Iterator[int]:
        """Yields 1, 2, ... ``most``, and pauses before each but the first."""
        for attempt in range(1, most + 1):
            if attempt > 1:
                sleep(self.pause_s(attempt - 1))
            yield attempt


DENIALS = 2
"""So many refusals by a store without success between them end a job. The driver has reached the
store, so that one may be the fault of one machine, and a retry run on another. After a second one,
of that machine or of the next, further ones would cost the time of workers for the same answer."""
SERVICE = Backoff(first_s=0.5, longest_s=30.0)
"""For a service that may be down for a while."""


def call_with_retry(
    work: Callable[[], T],
    what: str,
    retry_for_s: float,
    *,
    at_once: tuple[type[Unreachable], ...] = (),
    on_retry: Callable[[], None] = lambda: None,
    sleep: Callable[[float], None] = time.sleep,
) -> T:
    """Returns ``work()``, retried with backoff while it raises Unreachable, for ``retry_for_s``.

    Each failure is logged with ``what`` was tried; ``on_retry`` is called after each. Raises
    ColddiffError naming the last one when the time is up; any other error of ``work``, and those of
    ``at_once``, immediately.
    """
    deadline = time.monotonic() + retry_for_s
    failures = 0
    while True:
        try:
            return work()
        except at_once:
            raise
        except Unreachable as error:
            left_s = deadline - time.monotonic()
            if left_s <= 0:
                raise ColddiffError(
                    f"{what}: still failing after {retry_for_s:g} s of retries: {error}"
                ) from error
            failures += 1
            # The last try is at the deadline, however long the pause would have been.
            pause = min(SERVICE.pause_s(failures), left_s)
            log.warning("%s: %s; retrying in %.1f s, for %.0f s more", what, error, pause, left_s)
            on_retry()
            sleep(pause)
