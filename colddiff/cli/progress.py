"""Progress of a long command, on stderr: a line redrawn in place, or occasional lines in a log."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from colddiff.cli.output import note
from colddiff.machine.logged_progress import LOG_EVERY_S

DRAW_EVERY_S = 0.2
SILENT_S = 1.0
"""Longest that a wait for something outside this machine is not said."""


@contextmanager
def said_if_slow(line: str) -> Iterator[None]:
    """Within ``with``, prints ``line`` on stderr once that takes SILENT_S; empty: nothing."""
    timer = threading.Timer(SILENT_S, note, (line,))
    timer.daemon = True
    if line:
        timer.start()
    try:
        yield
    finally:
        timer.cancel()


class ProgressBar:
    """Progress callback (done, total) that prints both, the percentage and the remaining time.

    On a terminal the line is redrawn in place, else a new line is printed every LOG_EVERY_S. Work
    that finishes before the first line is due prints nothing.
    """

    def __init__(self, verb: str, unit: str) -> None:
        self._verb = verb
        self._unit = unit
        self._started = time.monotonic()
        self._printed = self._started
        self._first: int | None = None
        self._drawn = 0

    def __call__(self, done: int, total: int) -> None:
        now = time.monotonic()
        if self._first is None:
            self._first = done
        on_terminal = sys.stderr.isatty()
        if now - self._printed < (DRAW_EVERY_S if on_terminal else LOG_EVERY_S):
            return
        self._printed = now
        line = self._line(done, total, now - self._started)
        if on_terminal:
            sys.stderr.write(f"\r{line.ljust(self._drawn)}")
            self._drawn = len(line)
        else:
            sys.stderr.write(f"{line}\n")
        sys.stderr.flush()

    def close(self) -> None:
        """Clear the line on a terminal."""
        if self._drawn:
            sys.stderr.write(f"\r{' ' * self._drawn}\r")
            sys.stderr.flush()
            self._drawn = 0

    def _line(self, done: int, total: int, elapsed_s: float) -> str:
        rate = (done - (self._first or 0)) / max(elapsed_s, 1e-9)
        left = f", {clock((total - done) / rate)} left" if rate > 0 else ""
        percent = 100 * done / max(total, 1)
        return f"{self._verb} {done:,} of {total:,} {self._unit} ({percent:.0f} %){left}"


def clock(seconds: float) -> str:
    """A duration as text: ``42 s``, ``3 min 20 s``, ``2 h 05 min``."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
