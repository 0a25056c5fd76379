"""What a job says while it runs."""

from __future__ import annotations

import sys


def say(line: str) -> None:
    """One line to the job's log."""
    print(line, file=sys.stderr, flush=True)  # noqa: T201
