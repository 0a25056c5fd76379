"""When an attempt restarts its workers after they failed."""

from __future__ import annotations

from colddiff.retry import DENIALS, Backoff

RETRY = Backoff(first_s=1.0, longest_s=60.0)
LOSSES_EXCUSED = 10
"""Losses of machines without progress that are no failures. A training that takes down each
machine that it runs on must end as well."""


class Failures:
    """Counts consecutive failures without progress; more than ``limit`` end the attempt.

    A job that makes progress between failures survives any number of them; one that keeps failing
    at the same step ends.
    """

    def __init__(self, limit: int, step: int) -> None:
        self.limit, self.step = limit, step
        self.count = 0
        """Failures since ``step`` was reached."""
        self._losses = self._denials = 0

    def may_retry(self, step: int) -> bool:
        """Counts a failure; returns whether to retry. ``step``: reached so far."""
        self._reached(step)
        self.count += 1
        return self.count <= self.limit

    def denied_again(self, step: int) -> bool:
        """Counts a refusal by the store; whether it is one too many to retry after."""
        self._reached(step)
        self._denials += 1
        return self._denials >= DENIALS

    def excuses_loss(self, step: int) -> bool:
        """Counts the loss of a machine; returns whether it is none of the job's failures."""
        self._reached(step)
        self._losses += 1
        return self._losses <= LOSSES_EXCUSED

    def _reached(self, step: int) -> None:
        if step > self.step:
            self.count = self._losses = self._denials = 0
        self.step = step

    @property
    def pause_s(self) -> float:
        """Backoff before the next retry, s: none after the first failure, then growing ones, as an
        outage may be temporary."""
        return RETRY.pause_s(self.count - 1)
