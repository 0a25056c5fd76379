"""What sources of segments share: work that is known from the start, and failures in a row."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import Generic, TypeVar

from colddiff.errors import ColddiffError
from colddiff.verbs.search.promotion import BASE
from colddiff.verbs.search.segment import Segment

log = logging.getLogger(__name__)

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
        item = self._left.pop(0)
        segment = self._segment(item)
        self._running[segment.key] = item
        return segment

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


class FailuresInARow:
    """Ends a search whose base fails, or more than ``allowed`` trials one after the other."""

    def __init__(self, allowed: int, compared: str) -> None:
        """``compared``: what is compared with the base, such as ``trials``."""
        self._allowed, self._compared = allowed, compared
        self._count = 0

    def succeeded(self) -> None:
        """Forgets the failures so far."""
        self._count = 0

    def failed(self, number: int, error: str) -> None:
        """Raises ColddiffError where this failure ends the search; others are rows of its table."""
        self._count += 1
        why = f"trial {number}: {error}"
        if number == BASE:
            raise ColddiffError(
                f"the base failed, which {self._compared} are compared with ({why})"
            )
        if self._count > self._allowed:
            raise ColddiffError(
                f"{self._count} trials in a row failed, max_failures={self._allowed} are "
                f"allowed; the last was {why}"
            )
