"""A search on a real cluster: segments as trials of Ray Tune, two at a time."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.in_process import Done
from tests.unit.search.tiny_search import DRAWN, folder_of, trained, trials_of, write_search

pytestmark = pytest.mark.cluster


def test_a_search_on_a_cluster(
    colddiff_here: Callable[..., Done], storage: Path, tmp_path: Path
) -> None:
    job = write_search(tmp_path / "tiny.yaml", max_concurrent=2, searcher="random", **DRAWN)
    done = colddiff_here("submit", "search", job, "--json")
    assert done.returncode == 0, done.stderr
    result = json.loads(Path(json.loads(done.stdout)["result"]).read_text())
    trials = trials_of(storage)
    assert [trial.number for trial in trials] == [0, 1, 2]
    assert trained(storage) == {trial.job_id for trial in trials}
    assert result["best"]["job"] in trained(storage)
    folder = folder_of(storage)
    board = json.loads(folder.store.get(folder.key("leaderboard.json")))
    # Two segments of the base and of the best other, which a promotion extends.
    stood = sorted((row["steps"], row["state"]) for row in board["rows"])
    assert stood == [(2, "passed over"), (4, "done"), (4, "done")]
    # The finalists were evaluated with fewer calls by the same workers, and drawn.
    drawn = {path.name for path in storage.glob("jobs/search-*/pictures/*.png")}
    assert drawn == {"paths.png", "map.png", "calls.png", "strips.png", "rungs.png"}
    made = [json.loads(path.read_text()) for path in storage.glob("jobs/evaluate-*/status.json")]
    assert made
    assert {status["state"] for status in made} == {"done"}
    # Tune keeps its own files in a temporary folder, never in STORAGE.
    assert not list(storage.rglob("*.pkl"))
