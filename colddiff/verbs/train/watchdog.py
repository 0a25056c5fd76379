"""A watchdog for training that hangs: writes all stacks, then ends the process."""

from __future__ import annotations

import faulthandler
import os
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from typing import Self

# Data, compilation and the first collective may take this many times as long as a step.
FIRST_STEP = 4
EXIT_CODE = 70


class Watchdog:
    """Within ``with``, ends the process when ``beat`` was not called for ``timeout_s`` seconds.

    First ``report`` is called with the stacks of all threads, as text, and the other ranks of the
    deadlock get ``grace_s`` seconds to report theirs. A process whose interpreter hangs too (a
    native call that never releases the GIL) is ended by a timer in C, which writes the stacks to
    stderr.
    """

    def __init__(
        self,
        timeout_s: float,
        report: Callable[[str], None],
        *,
        grace_s: float = 10.0,
        end: Callable[[int], object] = os._exit,
    ) -> None:
        self._timeout_s, self._report, self._end = timeout_s, report, end
        self._grace_s = min(grace_s, timeout_s)
        self._allowed_s = FIRST_STEP * timeout_s
        self._last = time.monotonic()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)

    def __enter__(self) -> Self:
        self._last = time.monotonic()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join(timeout=self._grace_s)

    def beat(self) -> None:
        """Heartbeat: a step was completed."""
        self._last = time.monotonic()
        self._allowed_s = self._timeout_s

    def _watch(self) -> None:
        try:
            while not self._ended.wait(min(1.0, self._timeout_s / 4)):
                # Re-armed each time; it fires only if this thread can no longer run.
                faulthandler.dump_traceback_later(
                    2 * self._allowed_s, exit=True, file=sys.__stderr__ or sys.stderr
                )
                silent_s = time.monotonic() - self._last
                if silent_s > self._allowed_s:
                    self._end_process(silent_s)
                    return
        finally:
            faulthandler.cancel_dump_traceback_later()

    def _end_process(self, silent_s: float) -> None:
        try:
            self._report(f"no step for {silent_s:.0f} s, all threads:\n{_stacks()}")
        finally:
            self._ended.wait(self._grace_s)
            self._end(EXIT_CODE)


def _stacks() -> str:
    with tempfile.TemporaryFile("w+") as file:
        faulthandler.dump_traceback(file, all_threads=True)
        file.seek(0)
        return file.read()
