"""The stderr of a command that follows a job: log lines, and one status line redrawn in place."""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

from colddiff.errors import printable
from colddiff.jobs.status import Status, progress_line

QUIET_S = 5.0


class LiveLine(logging.Handler):
    """A logging handler on ``stream`` that can also ``show`` the status of a job.

    On a terminal the status is one line, redrawn in place; elsewhere a new line every few seconds.
    """

    def __init__(self, stream: TextIO) -> None:
        super().__init__(logging.INFO)
        self._stream = stream
        self._live = stream.isatty()
        self._on_line = False
        self._last = ("", 0.0)

    def emit(self, record: logging.LogRecord) -> None:
        self._write(self.format(record))

    def show(self, status: Status) -> None:
        """Shows the job's current status."""
        line = printable(progress_line(status))
        if self._live:
            width = shutil.get_terminal_size().columns
            self._stream.write(f"\r\x1b[2K{line[: width - 1]}")
            self._stream.flush()
            self._on_line = True
            return
        now, (shown, at) = time.monotonic(), self._last
        changed_phase = _phase_of(line) != _phase_of(shown)
        if line != shown and (changed_phase or now - at > QUIET_S):
            self._last = (line, now)
            self._write(line)

    def end_line(self) -> None:
        """Moves the cursor to a new line, if it is on the status line."""
        if self._on_line:
            self._stream.write("\n")
            self._stream.flush()
            self._on_line = False

    def _write(self, line: str) -> None:
        self.end_line()
        self._stream.write(f"{printable(line)}\n")
        self._stream.flush()


@contextmanager
def live_line(stream: TextIO) -> Iterator[LiveLine]:
    """Within ``with``, colddiff logs to ``stream``, which also has a status line."""
    logger, handler = logging.getLogger("colddiff"), LiveLine(stream)
    saved = (logger.level, logger.propagate, logger.handlers[:])
    logger.handlers[:] = [handler]
    logger.setLevel(logging.INFO)
    logger.propagate = False
    try:
        yield handler
    finally:
        handler.end_line()
        level, logger.propagate, logger.handlers[:] = saved
        logger.setLevel(level)  # not by assignment: loggers cache what is enabled


def _phase_of(line: str) -> str:
    return line.split("  ")[0].strip()
