"""What rank 0 exchanges with its job's folder while it trains, in a thread of its own."""

from __future__ import annotations

import threading
from collections import deque
from typing import Any, Self

from colddiff.errors import Unreachable
from colddiff.jobs.folder import JobFolder

EVERY_S = 1.0


class Reporter:
    """Progress out, a request to stop in, about once a second; a store that is away costs nothing.

    Within ``with``, on rank 0; on the other ranks it does nothing.
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
    def asked_to_stop(self) -> bool:
        """Whether somebody has asked this attempt to stop."""
        return self._stop

    def tell(self, progress: dict[str, Any]) -> None:
        """Has ``progress`` written soon, unless newer progress comes before."""
        self._progress.append(progress)

    def _run(self) -> None:
        ended = False
        while not ended:
            # The last round follows the end, so that the last progress is told too.
            ended = self._ended.is_set()
            try:
                self._stop = self._stop or self._folder.stop_requested(self._attempt)
                if self._progress:
                    self._folder.write_progress(self._attempt, self._progress[0])
            except Unreachable:
                pass  # the next round tries again
            self._ended.wait(EVERY_S)
