"""Whether other work takes the cores of this machine."""

from __future__ import annotations

import os

BUSY = 0.75
"""Of the cores, in use by others: threads then wait for each other at every layer of a network."""


def busy_machine() -> str:
    """A line if other work ran here in the last minute, with the way out; else "".

    Asked before a process has work of its own, whose load would be in it.
    """
    load, cores = os.getloadavg()[0], os.cpu_count() or 1
    if load < BUSY * cores or cores == 1 or os.environ.get("OMP_NUM_THREADS") == "1":
        return ""
    return (
        f"other work runs on this machine (load {load:.1f} on {cores} cores): while it does, "
        "OMP_NUM_THREADS=1 can be several times faster on a CPU"
    )
