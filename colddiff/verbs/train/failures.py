"""When an attempt goes on after its workers failed."""

from __future__ import annotations


class Failures:
    """Counts failures in a row without a new checkpoint; more than ``limit`` end the attempt.

    Any number of failures is survived by a job that gets on between them; one that fails at the
    same place again and again ends.
    """

    FIRST_PAUSE_S = 1.0
    LONGEST_PAUSE_S = 60.0

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
        return min(self.FIRST_PAUSE_S * 2.0 ** (self.count - 1), self.LONGEST_PAUSE_S)
