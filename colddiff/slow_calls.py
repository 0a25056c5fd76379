"""A line in the log for calls to a service that take long, so that nobody waits in silence."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

log = logging.getLogger(__name__)

SAY_S = 8.0
"""A call that takes longer is named."""
AGAIN_S = 60.0
"""At most one line about a service in this time: many calls wait for the same one."""
LOOK_S = 1.0


class SlowCalls:
    """Watches the calls of all threads from one thread, which sleeps while there are none."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._calls: dict[int, tuple[float, str, str]] = {}
        self._number = 0
        self._said: dict[str, float] = {}
        self._thread: threading.Thread | None = None

    @contextmanager
    def watched(self, service: str, what: str) -> Iterator[None]:
        """Within ``with``, logs that ``service`` is waited for once that takes ``SAY_S`` seconds.

        ``what`` is what it was asked for.
        """
        with self._changed:
            self._number += 1
            number = self._number
            self._calls[number] = (time.monotonic(), service, what)
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._watch, name="slow-calls", daemon=True)
                self._thread.start()
            self._changed.notify()
        try:
            yield
        finally:
            with self._changed:
                del self._calls[number]

    def _watch(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: bool(self._calls))
                now = time.monotonic()
                slow = [call for call in sorted(self._calls.values()) if now - call[0] > SAY_S]
            for began, service, what in slow:
                if now - self._said.get(service, float("-inf")) > AGAIN_S:
                    self._said[service] = now
                    log.warning("waiting for %s (%s) since %.0f s", service, what, now - began)
            time.sleep(LOOK_S)


SLOW_CALLS = SlowCalls()
