"""Rank 0's exchange with the job's folder during training, in a background thread."""

from __future__ import annotations

import threading
from collections import deque
from typing import Any, Self

from colddiff.errors import Unreachable
from colddiff.jobs.folder import JobFolder

EVERY_S = 1.0


class Reporter:
    """Writes progress and polls for a stop request, about once a second, without blocking training.

    Within ``with``, on rank 0; does nothing on the other ranks (``active=False``). An outage of the
    store is ignored.
    """

    def __init__(self, folder: JobFolder, attempt: int, *, active: bool) -> None:
        self._folder, self._attempt = folder, attempt
        self._progress: deque[dict[str, Any]] = deque(maxlen=1)
        self._stop = False
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="reporter", daemon=True)
        self._active = active

    def __enter__(self) -> Self:
        if self._active:
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        if self._active:
            self._thread.join(timeout=30)

    @property
    def stop_requested(self) -> bool:
        """Whether a stop of this attempt was requested."""
        return self._stop

    def report(self, progress: dict[str, Any]) -> None:
        """Writes ``progress`` soon, in the background; newer progress replaces it."""
        self._progress.append(progress)

    def _run(self) -> None:
        ended = False
        while not ended:
            # One more round after the end, so that the last progress is written too.
            ended = self._ended.is_set()
            try:
                self._stop = self._stop or self._folder.stop_requested(self._attempt)
                if self._progress:
                    self._folder.write_progress(self._attempt, self._progress[0])
            except Unreachable:
                pass  # the next round retries
            self._ended.wait(EVERY_S)
