"""`python ray_start.py start ...`, run by path: `ray start` with workers that fork.

It starts sooner than Ray's own, without what no job of ours uses: Ray Serve's commands, which take
most of the import, and the server of Ray's own clients (`ray://`).
"""

from __future__ import annotations

import inspect
import os
import sys
from pathlib import Path
from typing import Any

from ray._private import parameter

CLIENT = str(Path(__file__).with_name("client.py"))
KNOWN = inspect.signature(parameter.RayParams).parameters


class _Parameters(parameter.RayParams):
    """Ray's, with our program to start its workers, and no server of its own clients."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        if can_fork():
            options = {"setup_worker_path": CLIENT, **options}
        # There is no option for it: unset, Ray takes port 10001.
        super().__init__(*arguments, **{**options, "ray_client_server_port": None})


def can_fork() -> bool:
    """Whether this system can fork safely, and this Ray lets us say how its workers start."""
    return "setup_worker_path" in KNOWN and hasattr(os, "pidfd_open")


def main() -> None:
    """Ray's own command; with its own start of workers where they cannot be forks."""
    if not can_fork():
        sys.stderr.write("workers are not forked: this system or this version of Ray has no way\n")
    sys.modules["ray.serve.scripts"] = None  # type: ignore[assignment]  # Ray does without
    from ray.scripts.scripts import main as ray

    parameter.RayParams = _Parameters  # type: ignore[misc]
    ray()  # type: ignore[no-untyped-call]


if __name__ == "__main__":
    main()
