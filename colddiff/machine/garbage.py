"""How often Python looks for garbage in cycles."""

from __future__ import annotations

import atexit
import gc

OBJECTS = 50_000
"""New objects until Python looks through the young ones; by default 700."""
ROUNDS = 20
"""Of those until it looks through the older ones; by default 10."""


def collect_seldom() -> None:
    """Lets this process look for garbage in cycles 70 times less often than by default.

    For processes that are ours, at their start. Importing torch, Ray and MLflow makes a million
    objects that all stay, and looking through them again and again takes a third of that time; so
    does looking through them a last time when the process ends, which is left out.
    Garbage without cycles, such as tensors, is freed at once all the same.
    """
    gc.set_threshold(OBJECTS, ROUNDS, ROUNDS)
    atexit.unregister(gc.freeze)
    atexit.register(gc.freeze)
