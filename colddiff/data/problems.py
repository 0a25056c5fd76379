"""Everything that is wrong with a set of images, found in one run and told at once."""

from __future__ import annotations

import threading

from colddiff.errors import DataError

SHOWN = 3


class AlikeError(DataError):
    """What is wrong with many images for one reason, ``like``: told of the first, with a count."""

    def __init__(self, message: str, like: str = "") -> None:
        self.like = like
        super().__init__(message)


class Problems:
    """Problems, one line each, in the order of their keys; safe to share between threads."""

    def __init__(self) -> None:
        self._found: list[tuple[int, str, str]] = []
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._found)

    def add(self, line: str, key: int | None = None, like: str = "") -> None:
        """One problem; ``key`` orders it among the others (default: as they come).

        ``like``: of those with an equal one the first is told, with their number.
        """
        with self._lock:
            self._found.append((len(self._found) if key is None else key, line, like))

    def lines(self) -> list[str]:
        """All of them, in order; what is wrong with a file of many images is told once."""
        return [
            f"{line} (and {more} more like it)" if more else line
            for line, more in self._grouped().items()
        ]

    def _grouped(self) -> dict[str, int]:
        """The lines to tell, and how many others each stands for."""
        with self._lock:
            alike = dict.fromkeys((line, like) for _, line, like in sorted(self._found))
        first: dict[str, str] = {}
        grouped: dict[str, int] = {}
        for line, like in alike:
            shown = first.setdefault(like, line) if like else line
            grouped[shown] = grouped[shown] + 1 if shown in grouped else 0
        return grouped

    def refuse(self, what: str, way_out: str = "") -> None:
        """Raises DataError if there are any: the first few in its line, all in its details."""
        if self:
            raise self.error(what, way_out)

    def error(self, what: str, way_out: str = "") -> DataError:
        """The error that ``refuse`` raises."""
        lines = self.lines()
        out = f"; {way_out}" if way_out else ""
        if len(lines) == 1:
            return DataError(f"{lines[0]}{out}")
        count = sum(more + 1 for more in self._grouped().values())
        more = f"; and {len(lines) - SHOWN} more" if len(lines) > SHOWN else ""
        return DataError(f"{count} {what}: {'; '.join(lines[:SHOWN])}{more}{out}", lines)
