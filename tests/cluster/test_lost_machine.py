"""A machine is lost in the middle of a generation, then of a search: neither counts a failure."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from colddiff.cluster.forking import CLIENT
from colddiff.jobs.resolve import resolve
from colddiff.spec import parse
from colddiff.spec.plugins import load_plugin
from colddiff.verbs.generate.job import GenerateJob
from colddiff.verbs.search.job import SearchJob
from tests.kills import PATIENCE_S, wait_until
from tests.machines import processes_on, running_driver, several_machines
from tests.unhurried import KIND, write_plugin
from tests.unit.generation.trained import BLUR, train_tiny
from tests.unit.search.tiny_search import tiny_search

pytestmark = pytest.mark.cluster


@pytest.fixture(scope="module")
def machines() -> Iterator[tuple[Any, list[Any]]]:
    with several_machines(3) as found:
        yield found


@pytest.fixture(autouse=True)
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLDDIFF_STORAGE", str(tmp_path / "runs"))
    monkeypatch.setenv("COLDDIFF_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


def test_shards_of_a_lost_machine_are_made_elsewhere(
    machines: tuple[Any, list[Any]], tmp_path: Path, unloaded_plugins: None
) -> None:
    cluster, others = machines
    plugin = write_plugin(tmp_path)
    load_plugin(plugin)
    slow = {"plugins": [plugin], "degradation": {**BLUR, "kind": KIND, "pause_s": 0.05}}
    fields = {
        "checkpoint": train_tiny(tmp_path / "runs", **slow)["job"],
        "plugins": [plugin],
        "out": str(tmp_path / "out"),
        "num_samples": 120,
        "shard_size": 2,
        "batch_size": 2,
        "workers": 3,
        # A single failure would be a dead letter.
        "max_failures": 1,
    }
    resolved = resolve(parse(GenerateJob, fields), "lost", storage=str(tmp_path / "runs"))
    with running_driver(cluster, resolved, tmp_path) as (folder, driver):
        lost = others.pop()
        wait_until(lambda: processes_on(lost, "GenerationWorker.attempt"), "a shard", every_s=0.05)
        cluster.remove_node(lost, allow_graceful=False)
        assert driver.wait(timeout=PATIENCE_S) == 0
    assert len(list((tmp_path / "out" / "records").iterdir())) == 60
    assert "retrying: its machine was lost (" in folder.log(1).decode(errors="replace")


def test_a_trial_on_a_lost_machine_goes_on_elsewhere(
    machines: tuple[Any, list[Any]], tmp_path: Path
) -> None:
    cluster, others = machines
    while len(others) < 2:
        others.append(cluster.add_node(num_cpus=1, setup_worker_path=CLIENT))
    job = tiny_search(
        base={"num_steps": 400, "checkpoint_every": 20, "data": "digits"},
        num_trials=3,
        max_concurrent=3,
        scheduler="none",
        rungs=[1.0],
        # The base's first failure would end the search, two of others in a row as well.
        max_failures=0,
    )
    resolved = resolve(parse(SearchJob, job), "lost", storage=str(tmp_path / "runs"))
    with running_driver(cluster, resolved, tmp_path) as (folder, driver):
        lost = others.pop()
        wait_until(lambda: processes_on(lost, "ImplicitFunc.train"), "a trial there")
        trainings = tmp_path / "runs" / "jobs"
        wait_until(
            lambda: len(list(trainings.glob("train-*/checkpoints/step_*/checkpoint.json"))) >= 3,
            "checkpoints",
        )
        cluster.remove_node(lost, allow_graceful=False)
        assert driver.wait(timeout=PATIENCE_S) == 0
    log = folder.log(1).decode(errors="replace")
    assert "lost without notice: " in log
    assert "failed: " not in log
    result = folder.result()
    assert result
    assert (result["trials"], result["step"]) == (3, 3)
