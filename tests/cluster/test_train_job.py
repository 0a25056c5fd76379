"""`submit train` on a real cluster: two DDP workers, done once, extended, killed and resumed."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from colddiff import connect
from colddiff.engine.folder import JobFolder
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
