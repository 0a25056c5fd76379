"""Everything that is wrong with a set of images, found in one run and told at once."""

from __future__ import annotations

import threading

from colddiff.errors import DataError

SHOWN = 3


class Problems:
    """Problems, one line each, in the order of their keys; safe to share between threads."""

    def __init__(self) -> None:
        self._found: list[tuple[int, str]] = []
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._found)

    def add(self, line: str, key: int | None = None) -> None:
        """One problem; ``key`` orders it among the others (default: as they come)."""
        with self._lock:
            self._found.append((len(self._found) if key is None else key, line))

    def lines(self) -> list[str]:
        """All of them, in order; what is wrong with a file of many images is told once."""
        with self._lock:
            return list(dict.fromkeys(line for _, line in sorted(self._found)))

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
        more = f"; and {len(lines) - SHOWN} more" if len(lines) > SHOWN else ""
        return DataError(f"{len(lines)} {what}: {'; '.join(lines[:SHOWN])}{more}{out}", lines)
