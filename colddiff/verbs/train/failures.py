"""When an attempt goes on after its workers failed."""

from __future__ import annotations

from colddiff.retry import Backoff

RETRY = Backoff(first_s=1.0, longest_s=60.0)


class Failures:
    """Counts failures in a row without a new checkpoint; more than ``limit`` end the attempt.

    Any number of failures is survived by a job that gets on between them; one that fails at the
    same place again and again ends.
    """

    def __init__(self, limit: int, step: int) -> None:
        self.limit, self.step = limit, step
        self.count = 0
        """Failures since the newest checkpoint."""

    def goes_on(self, step: int) -> bool:
        """Counts a failure; ``step`` is that of the newest checkpoint. Whether to try again."""
        if step > self.step:
            self.count = 0
        self.step = step
        self.count += 1
        return self.count <= self.limit

    @property
    def pause_s(self) -> float:
        """How long to wait before trying again: what is away may come back."""
        return RETRY.pause_s(self.count)
