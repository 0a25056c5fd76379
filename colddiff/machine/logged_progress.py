"""Progress of work without a bar of its own: a line in the log every few seconds."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

LOG_EVERY_S = 10.0
"""Between two lines on the progress of anything, where a line cannot be redrawn."""

log = logging.getLogger(__name__)


def logged_progress(what: str, unit: str) -> Callable[[int, int], None]:
    """A callback (done, total) that logs both every LOG_EVERY_S; short work logs nothing."""
    logged = time.monotonic()

    def progress(done: int, total: int) -> None:
        nonlocal logged
        now = time.monotonic()
        if now - logged >= LOG_EVERY_S:
            logged = now
            log.info("%s: %s of %s %s", what, f"{done:,}", f"{total:,}", unit)

    return progress
