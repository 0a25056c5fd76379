"""When failures of trials end a search."""

from __future__ import annotations

from colddiff.errors import ColddiffError
from colddiff.verbs.search.promotion import BASE


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
