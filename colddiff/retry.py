"""Work on a service that may be away for a while: tried again with growing pauses, not for ever."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import TypeVar

from colddiff.errors import ColddiffError, Unreachable

log = logging.getLogger(__name__)

T = TypeVar("T")

FIRST_PAUSE_S = 0.5
LONGEST_PAUSE_S = 30.0


def patiently(
    work: Callable[[], T],
    what: str,
    patience_s: float,
    *,
    on_retry: Callable[[], None] = lambda: None,
    sleep: Callable[[float], None] = time.sleep,
) -> T:
    """What ``work()`` returns, called again while it raises Unreachable, for ``patience_s``.

    Each failure is logged with ``what`` was tried; ``on_retry`` is called after each. Raises
    ColddiffError naming the last one when the time is up; any other error of ``work`` at once.
    """
    deadline = time.monotonic() + patience_s
    pause = FIRST_PAUSE_S
    while True:
        try:
            return work()
        except Unreachable as error:
            left = deadline - time.monotonic()
            if left <= 0:
                raise ColddiffError(
                    f"{what}: gave up after {patience_s:g} s of trying: {error}"
                ) from error
            pause = min(pause, left)
            log.warning("%s: %s; retrying in %.1f s, for %.0f s more", what, error, pause, left)
            on_retry()
            sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE_S)
