"""A machine is lost in the middle of a training, a generation, a search: none counts a failure."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ray._raylet import GcsClient  # type: ignore[attr-defined]
from ray.core.generated.autoscaler_pb2 import DrainNodeReason  # type: ignore[attr-defined]

from colddiff.jobs.resolve import resolve
from colddiff.spec import parse
from colddiff.spec.plugins import load_plugin
from colddiff.verbs.generate.job import GenerateJob
from colddiff.verbs.search.job import SearchJob
from colddiff.verbs.train.job import TrainJob
from tests.kills import PATIENCE_S, wait_until
from tests.machines import await_training, processes_on, running_driver, several_machines
from tests.unhurried import KIND, write_plugin
from tests.unit.generation.trained import BLUR, train_tiny
from tests.unit.search.tiny_search import BASE, tiny_search

pytestmark = pytest.mark.cluster


@pytest.fixture(scope="module")
def machines_of_all() -> Iterator[tuple[Any, list[Any]]]:
    with several_machines(3) as found:
        yield found


@pytest.fixture
def machines(machines_of_all: tuple[Any, list[Any]]) -> tuple[Any, list[Any]]:
    """Three for the first test, and for each of the others at least two: one can be lost."""
    cluster, others = machines_of_all
    if not others:
        others.append(cluster.add_machine())
    return cluster, others


@pytest.fixture(autouse=True)
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLDDIFF_STORAGE", str(tmp_path / "runs"))
    monkeypatch.setenv("COLDDIFF_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


def test_workers_3_2_1_2_by_a_notice_a_loss_a_new_machine_and_then_without_controller(
    machines: tuple[Any, list[Any]],
    tmp_path: Path,
    unloaded_plugins: None,
) -> None:
    """A notice takes a checkpoint first, and so does room for more; a loss costs what came since
    the last one, and so does the death of Ray Train's controller. Then a stop."""
    cluster, others = machines
    noticed, lost = others
    plugin = write_plugin(tmp_path)
    load_plugin(plugin)
    job = parse(
        TrainJob,
        {
            "data": "digits",
            "image_size": 16,
            "channels": 1,
            "degradation": {"kind": KIND, "num_timesteps": 4, "kernel_size": 5, "pause_s": 0.1},
            "plugins": [plugin],
            "restorer": {"kind": "convnext_unet", "dim": 8, "dim_mults": [1, 2]},
            "global_batch_size": 6,
            "max_batch_per_worker": 2,
            "workers": [1, 3],
            "num_steps": 1_000_000,
            "checkpoint_every": 50,
            "max_failures": 1,
            "evaluation": {"num_images": 2, "batch_size": 2},
        },
    )
    resolved = resolve(job, "elastic")
    with running_driver(cluster, resolved, tmp_path) as (folder, driver):
        await_training(folder, workers=3)
        told = time.time()
        _give_notice(cluster.address, noticed.node_id)
        wait_until(lambda: (folder.outcome(1) or {}).get("left"), "the notice to be seen")
        left_at = (folder.outcome(1) or {})["step"]
        # Before that Ray Train may take the machine's end for the end of the start after it.
        wait_until(lambda: b"continuing without it" in folder.log(1), "the workers to have left")
        cluster.remove_node(noticed, allow_graceful=False)
        others.remove(noticed)
        second = await_training(folder, workers=2)
        assert second["step"] == left_at, f"{time.time() - told:.0f} s after the notice"
        cluster.remove_node(lost, allow_graceful=False)
        others.remove(lost)
        third = await_training(folder, workers=1)
        assert third["step"] >= second["step"]
        others.append(cluster.add_machine())
        wait_until(lambda: (folder.outcome(1) or {}).get("left") == "growing", "the new machine")
        left_at = (folder.outcome(1) or {})["step"]
        fourth = await_training(folder, workers=2)
        assert fourth["step"] == left_at
        (controller,) = processes_on(cluster.head_node, "TrainController")
        controller.kill()
        wait_until(lambda: len(folder.fencing_tokens(1)) == 5, "the start after the controller's")
        assert await_training(folder, workers=2)["step"] >= fourth["step"]
        folder.request_stop(1, 60)
        assert driver.wait(timeout=PATIENCE_S) == 4
    status = folder.status()
    assert status
    assert status.state == "stopped"
    log = folder.log(1).decode(errors="replace")
    assert re.search(rf"lost without notice: .*, node {lost.node_id[:8]};", log)
    # Neither the notice nor the loss is a failure.
    (counted,) = re.findall(r"workers failed \((.*)\); restarting .*: failure 1 since", log)
    assert counted.startswith("Ray Train's controller died: ")
    assert "there is room for more workers: continuing with them" in log


def _give_notice(address: str, node_id: str) -> None:
    """What `ray drain-node` asks for."""
    reason = DrainNodeReason.Value("DRAIN_NODE_REASON_PREEMPTION")
    deadline_ms = int((time.time() + 60) * 1000)
    accepted, why = GcsClient(address=address).drain_node(node_id, reason, "spot", deadline_ms)
    assert accepted, why


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
        "workers": 2,
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
    machines: tuple[Any, list[Any]], tmp_path: Path, unloaded_plugins: None
) -> None:
    cluster, others = machines
    plugin = write_plugin(tmp_path)
    load_plugin(plugin)
    # So slow that the trial there has not ended when its machine is lost.
    slow = {**BASE["degradation"], "kind": KIND, "pause_s": 0.2}
    job = tiny_search(
        base={"num_steps": 60, "checkpoint_every": 10, "degradation": slow, "plugins": [plugin]},
        num_trials=3,
        max_concurrent=2,
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

        def with_checkpoints() -> int:
            found = trainings.glob("train-*/checkpoints/step_*/checkpoint.json")
            return len({path.parents[2] for path in found})

        # Each keeps its newest alone: three would be there when a third one runs.
        wait_until(lambda: with_checkpoints() >= 2, "a checkpoint of both")
        cluster.remove_node(lost, allow_graceful=False)
        assert driver.wait(timeout=PATIENCE_S) == 0
    log = folder.log(1).decode(errors="replace")
    assert "lost without notice: " in log
    assert "failed: " not in log
    result = folder.result()
    assert result
    assert (result["trials"], result["step"]) == (3, 3)
