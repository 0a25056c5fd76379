"""A search on a real cluster: segments as trials of Ray Tune, two at a time."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cluster.conftest import RunningCluster
from tests.unit.search.tiny_search import folder_of, trained, trials_of, write_search

pytestmark = pytest.mark.cluster


def test_a_search_on_a_cluster_and_more_trials_of_it(
    cluster: RunningCluster, tmp_path: Path
) -> None:
    storage = tmp_path / "runs"
    env = {**os.environ, **cluster.env, "COLDDIFF_STORAGE": str(storage)}

    def submit(num_trials: int) -> subprocess.CompletedProcess[str]:
        fields = {"num_trials": num_trials, "max_concurrent": 2, "searcher": "random"}
        job = write_search(tmp_path / "tiny.yaml", **fields)
        words = [sys.executable, "-m", "colddiff.cli.main", "submit", "search", str(job), "--json"]
        return subprocess.run(words, env=env, capture_output=True, text=True, check=False)

    done = submit(2)
    assert done.returncode == 0, done.stderr
    result = json.loads(Path(json.loads(done.stdout)["result"]).read_text())
    before = trials_of(storage)
    assert [trial.number for trial in before] == [0, 1]
    assert trained(storage) == {trial.job_id for trial in before}
    assert result["best"]["job"] in trained(storage)
    folder = folder_of(storage)
    board = json.loads(folder.store.get(folder.key("leaderboard.json")))
    assert {row["state"] for row in board["rows"]} == {"done"}

    more = submit(3)
    assert more.returncode == 0, more.stderr
    assert "2 of 3 trials resumed" in more.stderr
    assert trials_of(storage)[:2] == before
    assert len(trained(storage)) == 3
    # Tune keeps its own files in a temporary folder, never in STORAGE.
    assert not list(storage.rglob("*.pkl"))
