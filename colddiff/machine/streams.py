"""Standard streams that may be closed, full, or a pipe without a reader: the work goes on."""

from __future__ import annotations

import errno
import io
import os
import select
import sys
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from typing_extensions import Buffer

ERRORS = "backslashreplace"
"""Names of files may hold bytes that are no text, and a terminal may not know every character."""


class LossyFile(io.FileIO):
    """A file descriptor whose writes do not fail: after the first failure nothing is written."""

    failure: OSError | None = None

    def write(self, data: Buffer, /) -> int:
        size = memoryview(data).nbytes
        while self.failure is None:
            try:
                written: int | None = super().write(data)
            except OSError as error:
                self.failure = error
                break
            if written is not None:
                return written
            select.select([], [self], [])  # a pipe that does not block, and is full
        return size


class Streams:
    """The standard streams of this process, replaced where they are the real ones."""

    def __init__(self) -> None:
        # Else the next file that is opened would take their place, and get what is printed.
        for number in (0, 1, 2):
            try:
                os.fstat(number)
            except OSError:
                os.open(os.devnull, os.O_RDWR)
        self.stdout = _lossy(1, sys.stdout, sys.__stdout__)
        self.stderr = _lossy(2, sys.stderr, sys.__stderr__)
        if self.stdout is not None:
            sys.stdout = _text(self.stdout, sys.stdout)
        if self.stderr is not None:
            sys.stderr = _text(self.stderr, sys.stderr)

    @property
    def lost(self) -> str:
        """Why output on stdout was lost, though somebody is there to read it; else ""."""
        sys.stdout.flush()
        failure = self.stdout.failure if self.stdout is not None else None
        # A reader that has left has seen enough: `colddiff list | head`.
        return "" if failure is None or failure.errno == errno.EPIPE else str(failure.strerror)


def _lossy(number: int, now: TextIO | None, real: TextIO | None) -> LossyFile | None:
    """A stream's descriptor, unless something else has replaced the stream already."""
    return LossyFile(number, "w", closefd=False) if now is None or now is real else None


def _text(raw: LossyFile, before: TextIO | None) -> TextIO:
    if before is not None:
        before.flush()
    return io.TextIOWrapper(
        io.BufferedWriter(raw),
        encoding=before.encoding if before is not None else "utf-8",
        errors=ERRORS,
        line_buffering=before is not None and (before.isatty() or before is sys.__stderr__),
    )
