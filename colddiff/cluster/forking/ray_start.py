"""`python ray_start.py start ...`, run by path: `ray start` with workers that fork."""

from __future__ import annotations

import inspect
import os
import sys
from pathlib import Path
from typing import Any

from ray._private import parameter
from ray.scripts.scripts import main as ray

CLIENT = str(Path(__file__).with_name("client.py"))


class _Parameters(parameter.RayParams):
    """Ray's, with our program to start its workers."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **{"setup_worker_path": CLIENT, **options})


def can_fork() -> bool:
    """Whether this system can fork safely, and this Ray lets us say how its workers start."""
    known = inspect.signature(parameter.RayParams).parameters
    return "setup_worker_path" in known and hasattr(os, "pidfd_open")


def main() -> None:
    """Ray's own command; with its own start of workers where they cannot be forks."""
    if can_fork():
        parameter.RayParams = _Parameters  # type: ignore[misc]
    else:
        sys.stderr.write("workers are not forked: this system or this version of Ray has no way\n")
    ray()  # type: ignore[no-untyped-call]


if __name__ == "__main__":
    main()
