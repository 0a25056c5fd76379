"""How a job is coming along, on a terminal as one live line, elsewhere as a line now and then."""

from __future__ import annotations

import shutil
import time
from typing import TextIO

from colddiff.jobs.folder import Status

QUIET_S = 5.0


class Display:
    """Talk on ``stream`` (standard error): ``say`` for lines that stay, ``show`` for progress."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._live = stream.isatty()
        self._on_line = False
        self._last = ("", 0.0)

    def say(self, line: str) -> None:
        """A line that stays."""
        self._end_line()
        self._stream.write(f"{line}\n")
        self._stream.flush()

    def show(self, status: Status) -> None:
        """How the job stands now."""
        line = progress_line(status)
        if self._live:
            width = shutil.get_terminal_size().columns
            self._stream.write(f"\r\x1b[2K{line[: width - 1]}")
            self._stream.flush()
            self._on_line = True
            return
        now, (shown, at) = time.monotonic(), self._last
        changed_phase = _words(line) != _words(shown)
        if line != shown and (changed_phase or now - at > QUIET_S):
            self._last = (line, now)
            self.say(line)

    def close(self) -> None:
        """Leaves the cursor on a line of its own."""
        self._end_line()

    def _end_line(self) -> None:
        if self._on_line:
            self._stream.write("\n")
            self._stream.flush()
            self._on_line = False


def progress_line(status: Status) -> str:
    """``training  120/500  24%  loss 0.123  812 img/s  ETA 0:01:23``."""
    words = status.phase or status.state if not status.finished else status.state
    parts = [f"{words:<10}"]
    if status.num_steps:
        share = 100 * status.step // status.num_steps
        parts.append(f"{status.step}/{status.num_steps}  {share}%")
    if status.finished:
        return "  ".join(parts).rstrip()
    if status.detail:
        parts.append(status.detail)
    if status.loss is not None:
        parts.append(f"loss {status.loss:.4g}")
    if status.images_per_s:
        parts.append(f"{status.images_per_s:.0f} img/s")
    if status.eta_s is not None:
        parts.append(f"ETA {duration(status.eta_s)}")
    return "  ".join(parts).rstrip()


def spent_line(status: Status) -> str:
    """What all attempts took: ``0:12:33 of running over 2 attempts, 1.27 GPU hours``."""
    attempts = f" over {status.attempt} attempts" if status.attempt > 1 else ""
    return f"{duration(status.running_s)} of running{attempts}, {status.gpu_hours:.3g} GPU hours"


def duration(seconds: float) -> str:
    """``h:mm:ss``."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}"


def _words(line: str) -> str:
    return line.split("  ")[0].strip()
