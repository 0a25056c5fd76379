"""Ten thousand jobs in one STORAGE on a disk: what a list of them takes, first and again."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import pytest

from tests.bench.listing import list_times, make_jobs


def many_jobs(count: int) -> dict[str, Any]:
    """Seconds of whole `colddiff list` commands, by the clock and of CPU."""
    with tempfile.TemporaryDirectory() as name, pytest.MonkeyPatch.context() as patch:
        # A job is a dozen flushed files, which is not what is measured.
        patch.setattr("os.fsync", lambda file: None)
        storage = str(Path(name) / "runs")
        make_jobs(storage, count)
        env = {"COLDDIFF_STORAGE": storage, "COLDDIFF_HOME": str(Path(name) / "home")}
        index = Path(storage) / "listed.json"
        return {
            "storage": f"a disk, {count:,} jobs",
            **list_times("first list", [env]),
            **list_times("list again", [env] * 3),
            **list_times("list --limit 0", [env], "--limit", "0"),
            "its index, MB": index.stat().st_size / 1e6 if index.exists() else 0.0,
        }
