"""A search through kills on a real cluster, with a plugin, and trials with workers of their own."""

from __future__ import annotations

import json
import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from colddiff.jobs.attempt import Attempt
from colddiff.jobs.resolve import resolve
from colddiff.spec import parse
from colddiff.verbs.search.job import SearchJob
from colddiff.verbs.search.planner import Planner
from colddiff.verbs.search.work import prepare
from tests.cluster.conftest import RunningCluster
from tests.in_process import Done
from tests.soak.search import KilledSearch, findings, records
from tests.unit.search.tiny_search import folder_of, trained, trials_of, write_search

pytestmark = pytest.mark.cluster

STRAIGHT: dict[str, Any] = {"scheduler": "none", "rungs": [1.0]}


@pytest.fixture
def env(cluster: RunningCluster, tmp_path: Path) -> dict[str, str]:
    kept = {name: value for name, value in cluster.env.items() if name != "MLFLOW_TRACKING_URI"}
    return {**kept, "COLDDIFF_CACHE": str(tmp_path / "cache")}


def test_kills_change_nothing_and_more_trials_extend_it(
    cluster: RunningCluster, env: dict[str, str], tmp_path: Path, unloaded_plugins: None
) -> None:
    search = KilledSearch(tmp_path, cluster.home, env)
    rng = random.Random(0)
    try:
        search.submit("killed", 4)
        kills = [search.kill("killed", kind, 30, rng) for kind in ("trial", "driver")]
        search.submit("killed", 5)
        search.finish("killed")
    finally:
        search.end()
    found = findings(search, "killed", kills)
    found.check()
    assert found.trials == 5

    # What it would have asked for if left alone follows from the job and its seed.
    attempt = Attempt(
        resolve(parse(SearchJob, search.job(5)), "killed", storage=str(tmp_path / "whole")), 1
    )
    planner = Planner(attempt, prepare(attempt))
    while planner.next() is not None:
        pass
    assert records(search, "killed") == records(search, "whole")


def test_trials_with_two_workers_never_wait_for_each_other(
    colddiff_here: Callable[..., Done], storage: Path, tmp_path: Path
) -> None:
    # The workers of one trial take all CPUs: two trials at once would each hold some of them, and
    # wait for those of the other.
    cpus = max(4, os.cpu_count() or 0) // 2
    job = write_search(
        tmp_path / "two.yaml",
        base={"workers": 2},
        num_trials=2,
        max_concurrent=2,
        searcher="random",
        resources={"cpus": cpus},
        **STRAIGHT,
    )
    larger = colddiff_here("submit", "search", job, f"resources={{cpus: {cpus + 1}}}")
    assert larger.returncode == 2
    need = f"2 workers with {cpus + 1} CPU"
    assert f"base.workers: a trial needs {need}, the cluster has room for 1" in larger.stderr
    assert not (storage / "jobs").exists()
    done = colddiff_here("submit", "search", job)
    assert done.returncode == 0, done.stderr
    folder = folder_of(storage)
    log = folder.log(1).decode()
    assert "max_concurrent=2: the cluster has room for 1 at once, the others wait" in log
    # Evaluations of its trials have workers too.
    assert "was not evaluated" not in log
    assert trained(storage) == {trial.job_id for trial in trials_of(storage)}
    for job_id in trained(storage):
        fence = json.loads((storage / "jobs" / job_id / "attempts/1/starts/1.json").read_text())
        assert fence["world_size"] == 2
        result = json.loads((storage / "jobs" / job_id / "result.json").read_text())
        assert result["step"] == 4
