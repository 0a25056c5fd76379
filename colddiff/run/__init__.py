"""Jobs composed in this process, from adapters and engine; ``jobs/`` does the same under Ray."""

from __future__ import annotations

from colddiff.run.local import run_local, train

__all__ = ["run_local", "train"]
