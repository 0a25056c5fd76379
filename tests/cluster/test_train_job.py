"""`submit train` on a real cluster: two DDP workers, done once, extended, killed and resumed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch

from colddiff import connect
from colddiff.engine.checkpoints import Checkpoints
from colddiff.engine.folder import JobFolder
from colddiff.launch.processes import processes
from tests.cluster.conftest import RunningCluster

pytestmark = pytest.mark.cluster

TINY = (
    "restorer.dim=8",
    "restorer.dim_mults=[1, 2]",
    "degradation.num_timesteps=4",
    "global_batch_size=8",
    "evaluation.num_images=16",
    "log_every=1",
)


@pytest.fixture
def colddiff(cluster: RunningCluster, tmp_path: Path) -> Iterator[Callable[..., Any]]:
    """Starts `colddiff submit train quickstart` with a storage of this test's own."""
    env = cluster.env | {
        "COLDDIFF_STORAGE": str(tmp_path / "runs"),
        "COLDDIFF_CACHE": str(tmp_path / "cache"),
    }
    env.pop("MLFLOW_TRACKING_URI", None)

    started: list[subprocess.Popen[str]] = []

    def start(*words: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "colddiff.cli.main", "submit", "train", "quickstart"]
        process = subprocess.Popen(
            [*command, *TINY, "--json", *words],
            env=env,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        if process.poll() is None:
            process.kill()
            process.communicate()


def ended(process: subprocess.Popen[str]) -> tuple[dict[str, Any], str]:
    stdout, stderr = process.communicate(timeout=300)
    assert process.returncode == 0, stderr
    return json.loads(stdout), stderr


def folder_of(job_id: str, tmp_path: Path) -> JobFolder:
    return JobFolder(connect.open_store(str(tmp_path / "runs")), job_id)


def weights(folder: JobFolder, step: int) -> dict[str, torch.Tensor]:
    snapshot = Checkpoints(folder.store, folder.key("checkpoints")).load(
        step, ("model", "ema", "optimizer")
    )
    return {f"{s}/{n}": t for s, group in snapshot.tensors.items() for n, t in group.items()}


def test_done_once_then_extended(colddiff: Callable[..., Any], tmp_path: Path) -> None:
    first, _ = ended(colddiff("num_steps=4"))
    assert first["state"] == "done"
    again, talk = ended(colddiff("num_steps=4"))
    assert (again["id"], again["attempt"]) == (first["id"], 1)
    assert "is done" in talk
    more, _ = ended(colddiff("num_steps=6"))
    assert (more["id"], more["attempt"]) == (first["id"], 2)
    folder = folder_of(first["id"], tmp_path)
    assert "going on from the checkpoint of step 4" in folder.log(2).decode()
    result = folder.result()
    assert result
    assert result["step"] == 6
    assert {"eval/degraded/fd_lenet", "eval/naive/ssim"} <= result["metrics"].keys()
    state = json.loads(folder.store.get(folder.key("checkpoints/step_00000006/state.json")))
    assert state["world_size"] == 2
    assert _mlflow_steps(folder, result) == [1, 2, 3, 4, 5, 6]


def _mlflow_steps(folder: JobFolder, result: dict[str, Any]) -> list[int]:
    from colddiff.adapters.mlflow_service import client

    api = client(result["tracking"]["uri"])
    run = api.get_run(result["tracking"]["run_id"])
    assert run.info.status == "FINISHED"
    assert run.data.tags["colddiff.job_id"] == folder.job_id
    return [m.step for m in api.get_metric_history(run.info.run_id, "train/loss_l1")]


def test_a_killed_worker_and_a_killed_driver_change_nothing(
    colddiff: Callable[..., Any], tmp_path: Path
) -> None:
    steps = ("num_steps=120", "checkpoint_every=10", "keep=20")
    whole, _ = ended(colddiff(*steps, "--name", "whole"))
    process = colddiff(*steps, "--name", "parts")
    folder = _wait_for_folder(tmp_path, "parts")
    _wait_for_step(folder, 20)
    _kill("RayTrainWorker")
    _wait_for_step(folder, 50)
    _kill("-m jobs.train")
    process.communicate(timeout=300)
    assert process.returncode != 0
    parts, _ = ended(colddiff(*steps, "--name", "parts"))
    assert parts["attempt"] == 2
    a, b = weights(folder_of(whole["id"], tmp_path), 120), weights(folder, 120)
    assert a.keys() == b.keys()
    assert [name for name in a if not torch.equal(a[name], b[name])] == []


def _wait_for_folder(tmp_path: Path, name: str) -> JobFolder:
    def found() -> JobFolder | None:
        ids = [p.name for p in (tmp_path / "runs" / "jobs").glob(f"train-{name}-*")]
        return folder_of(ids[0], tmp_path) if ids else None

    folder: JobFolder = _wait(found)
    return folder


def _wait_for_step(folder: JobFolder, step: int) -> None:
    def reached() -> bool:
        steps = Checkpoints(folder.store, folder.key("checkpoints")).steps()
        return bool(steps) and steps[-1] >= step

    _wait(reached)


def _wait(look: Callable[[], Any], timeout_s: float = 240) -> Any:
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        if found := look():
            return found
        time.sleep(0.1)
    raise AssertionError("nothing came of it in time")


def _kill(what: str) -> None:
    """SIGKILL to one worker, by its title, or to the driver and the shell it runs in."""
    hits = [process.pid for process in processes().values() if what in process.command]
    assert hits, [process.command for process in processes().values()]
    for pid in hits if what == "-m jobs.train" else hits[:1]:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
