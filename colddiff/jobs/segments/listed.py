"""A source of segments whose work is known from the start."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import Generic, TypeVar

from colddiff.jobs.segments.segment import Segment
from colddiff.jobs.segments.spending import RUNNING

log = logging.getLogger(__name__)

ENDED = "ended"
"""How an item stands whose segment has ended, in this attempt or before it."""

Item = TypeVar("Item")
Work = TypeVar("Work", bound=Segment)


class ListedSegments(ABC, Generic[Item, Work]):
    """A ``SegmentSource`` of items that are known from the start, one segment each, in order."""

    says_failed = "failed"
    """What the log says of a segment that ended with an error."""

    def __init__(self, left: Iterable[Item]) -> None:
        self._left = list(left)
        self._running: dict[str, Item] = {}
        self._errors: dict[str, str] = {}

    @abstractmethod
    def _segment(self, item: Item) -> Work:
        """The work for ``item``."""

    @property
    def exhausted(self) -> bool:
        return not self._left and not self._running

    def next(self) -> Work | None:
        if not self._left:
            return None
        segment = self._segment(item := self._left[0])
        self._running[segment.key] = item
        del self._left[0]
        return segment

    def stands(self, item: Item) -> str:
        """``waiting``, RUNNING or ENDED; for any thread."""
        # In the order of a segment's life: what begins meanwhile is found in one of the two.
        if item in tuple(self._left):
            return "waiting"
        return RUNNING if item in tuple(self._running.values()) else ENDED

    def finished(self, segment: Segment, error: str) -> None:
        del self._running[segment.key]
        if error:
            log.warning("%s %s: %s", segment.key, self.says_failed, error)
            self._errors[segment.key] = error

    def interrupted(self, segment: Segment) -> None:
        self._left.append(self._running.pop(segment.key))

    def failures(self) -> list[str]:
        """A sentence for each segment that failed; no comparison has what it was for."""
        return [f"{key} failed: {error}" for key, error in self._errors.items()]
