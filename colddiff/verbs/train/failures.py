"""When an attempt restarts its workers after they failed."""

from __future__ import annotations

from colddiff.retry import Backoff

RETRY = Backoff(first_s=1.0, longest_s=60.0)


class Failures:
    """Counts consecutive failures without a new checkpoint; more than ``limit`` end the attempt.

    A job that makes progress between failures survives any number of them; one that keeps failing
    at the same step ends.
    """

    def __init__(self, limit: int, step: int) -> None:
        self.limit, self.step = limit, step
        self.count = 0
        """Failures since the newest checkpoint."""

    def may_retry(self, step: int) -> bool:
        """Counts a failure; returns whether to retry. ``step``: of the newest checkpoint."""
        if step > self.step:
            self.count = 0
        self.step = step
        self.count += 1
        return self.count <= self.limit

    @property
    def pause_s(self) -> float:
        """Backoff before the next retry, s: an outage may be temporary."""
        return RETRY.pause_s(self.count)
