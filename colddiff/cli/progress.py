"""How far a long command is, on stderr: one changing line on a terminal, a few in a log."""

from __future__ import annotations

import sys
import time

LOG_EVERY_S = 10.0
DRAW_EVERY_S = 0.2


class Progress:
    """Callable with (done, total); says both, the rate and what is left to wait.

    On a terminal the line is redrawn in place, elsewhere a new one is written now and then; work
    that takes under a second says nothing.
    """

    def __init__(self, verb: str, unit: str) -> None:
        self._verb = verb
        self._unit = unit
        self._began = time.monotonic()
        self._said = self._began
        self._first: int | None = None
        self._drawn = 0

    def __call__(self, done: int, total: int) -> None:
        now = time.monotonic()
        if self._first is None:
            self._first = done
        on_terminal = sys.stderr.isatty()
        if now - self._said < (DRAW_EVERY_S if on_terminal else LOG_EVERY_S):
            return
        self._said = now
        line = self._line(done, total, now - self._began)
        if on_terminal:
            sys.stderr.write(f"\r{line.ljust(self._drawn)}")
            self._drawn = len(line)
        else:
            sys.stderr.write(f"{line}\n")
        sys.stderr.flush()

    def close(self) -> None:
        """Clears the line on a terminal."""
        if self._drawn:
            sys.stderr.write(f"\r{' ' * self._drawn}\r")
            sys.stderr.flush()
            self._drawn = 0

    def _line(self, done: int, total: int, passed_s: float) -> str:
        rate = (done - (self._first or 0)) / max(passed_s, 1e-9)
        left = f", {clock((total - done) / rate)} left" if rate > 0 else ""
        percent = 100 * done / max(total, 1)
        return f"{self._verb} {done:,} of {total:,} {self._unit} ({percent:.0f} %){left}"


def clock(seconds: float) -> str:
    """Seconds as people read them: ``42 s``, ``3 min 20 s``, ``2 h 05 min``."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
