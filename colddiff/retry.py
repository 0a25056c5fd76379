"""Work on a service that may be away for a while: tried again with growing pauses, not for ever."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from colddiff.errors import ColddiffError, Unreachable

T = TypeVar("T")

FIRST_PAUSE_S = 0.5
LONGEST_PAUSE_S = 30.0


def patiently(
    work: Callable[[], T],
    what: str,
    patience_s: float,
    talk: Callable[[str], None],
    *,
    sleep: Callable[[float], None] = time.sleep,
) -> T:
    """What ``work()`` returns, called again while it raises Unreachable, for ``patience_s``.

    Each failure is told with ``what`` was tried. Raises ColddiffError naming the last one when the
    time is up; any other error of ``work`` at once.
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
            talk(f"{what}: {error}; trying again in {pause:.1f} s, for {left:.0f} s more")
            sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE_S)
