"""Memory that this process may still use, with what its container allows."""

from __future__ import annotations

from pathlib import Path

import psutil

CGROUPS = Path("/sys/fs/cgroup")
LIMITS = (
    ("memory.max", "memory.current"),
    ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"),
)
"""Limit and use of a container, in version 2 and in version 1."""


def free_memory() -> int:
    """Bytes; those of the machine, or fewer where its container allows fewer.

    >>> free_memory() > 0
    True
    """
    free = int(psutil.virtual_memory().available)
    for limit, used in LIMITS:
        try:
            allowed, taken = ((CGROUPS / name).read_text() for name in (limit, used))
            free = min(free, int(allowed) - int(taken))
        except (OSError, ValueError):  # another version, or no limit: "max"
            continue
    return max(0, free)
