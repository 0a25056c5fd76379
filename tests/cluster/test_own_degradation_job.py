"""A user's own degradation as a real Ray job: it travels by content and runs in every process."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from colddiff.checkpoints.references import load_checkpoint
from colddiff.degradations import DEGRADATIONS
from colddiff.errors import CheckpointError
from colddiff.jobs.folder import JobFolder
from colddiff.rng import streams
from colddiff.sampling import sample
from colddiff.spec.plugins import is_loaded, load_plugin, plugin_digest, unload_plugin
from colddiff.stores.open import open_store
from tests.cluster.canary import CANARY, places_with
from tests.cluster.conftest import RunningCluster
from tests.in_process import Done

pytestmark = pytest.mark.cluster

EXAMPLE = Path(__file__).resolve().parents[2] / "infra" / "docs" / "own-degradation"
TINY = (
    "image_size=8",
    "restorer.dim=8",
    "restorer.dim_mults=[1, 2]",
    "degradation.num_timesteps=4",
    "global_batch_size=8",
    "evaluation.num_images=16",
    "workers=2",
    "num_steps=4",
    "checkpoint_every=2",
    "evaluate_every=2",
    "log_every=1",
)


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    """The worked example in a folder of the user's."""
    folder = tmp_path / "mine"
    folder.mkdir()
    for name in ("kspace.py", "kspace.yaml"):
        shutil.copy(EXAMPLE / name, folder)
    return folder


@pytest.fixture
def forgotten() -> Iterator[None]:
    """This process does not know the example's kind, before and after."""
    unload_plugin(load_plugin(EXAMPLE / "kspace.py"))
    yield
    unload_plugin(load_plugin(EXAMPLE / "kspace.py"))


def test_it_trains_and_samples_from_the_copy_that_was_staged(
    cluster: RunningCluster,
    colddiff_here: Callable[..., Done],
    storage: Path,
    mine: Path,
    forgotten: None,
) -> None:
    def colddiff(*words: str) -> str:
        ran = colddiff_here(*words, AWS_SECRET_ACCESS_KEY=f"client-{CANARY}")
        assert ran.returncode == 0, ran.stderr
        # A process of its own would be gone, and what it had loaded with it.
        if is_loaded(digest):
            unload_plugin(load_plugin(EXAMPLE / "kspace.py"))
        return ran.stdout.strip()

    digest = plugin_digest(mine / "kspace.py")
    job_id = colddiff("submit", "train", str(mine / "kspace.yaml"), *TINY, "--detach")
    # Whatever runs from here on reads the staged copy: the user's own has become useless.
    (mine / "kspace.py").write_text("raise RuntimeError('not the file that was submitted')\n")
    colddiff("wait", job_id)

    folder = JobFolder(open_store(str(storage)), job_id)
    assert folder.job()["content"]["plugins"] == digest
    # Two training workers, an evaluating task after step 2, and the driver after step 4.
    state = json.loads(folder.store.get(folder.key("checkpoints/step_00000004/state.json")))
    assert (state["world_size"], state["job"]["plugins"]) == (2, [f"plugins/{digest}.py"])
    assert folder.evaluated_steps() == [2, 4]
    result = folder.result()
    assert result is not None
    assert {"eval/degraded/rmse", "eval/naive/rmse", "eval/sampled/rmse"} <= result[
        "metrics"
    ].keys()
    # Of two workers, a task and the driver: one run, which has each step once.
    assert _logged_steps(folder, result) == [1, 2, 3, 4]

    # Submitted again it is done; a larger num_steps goes on, with the file as it was.
    shutil.copy(EXAMPLE / "kspace.py", mine)
    words = ("submit", "train", str(mine / "kspace.yaml"), *TINY, "--json")
    again = json.loads(colddiff(*words))
    assert (again["id"], again["state"], again["attempt"]) == (job_id, "done", 1)
    more = json.loads(colddiff(*words, "num_steps=6", "workers=1"))
    assert (more["id"], more["state"], more["attempt"]) == (job_id, "done", 2)
    assert "resuming from the checkpoint of step 4" in folder.log(2).decode()
    result = folder.result()
    assert result is not None
    assert result["step"] == 6
    assert {"eval/degraded/rmse", "eval/naive/rmse"} <= result["metrics"].keys()
    assert _logged_steps(folder, result) == [1, 2, 3, 4, 5, 6]

    # The processes of the job had a secret, its client another: neither is anywhere to be read.
    head = Path(f"/proc/{cluster.record.pid}/environ").read_bytes()
    assert CANARY.encode() in head
    for secret in (CANARY, cluster.home.token()):
        assert places_with(secret, [storage], cluster.cluster, cluster.record) == []

    # Code that came with a checkpoint does not run by itself; the user's own file does.
    with pytest.raises(CheckpointError, match=f"--trust-plugin {digest}"):
        load_checkpoint(job_id, storage=str(storage))
    load_plugin(EXAMPLE / "kspace.py")
    found = load_checkpoint(job_id, storage=str(storage))
    assert type(found.degradation.spec) is DEGRADATIONS["kspace"]
    x_T = torch.zeros(2, 1, 8, 8)
    omega = found.degradation.draw(2, rng=streams(0, "test", range(2)))
    assert torch.isfinite(sample(found.restorer, found.degradation, x_T, omega)).all()


def _logged_steps(folder: JobFolder, result: dict[str, Any]) -> list[int]:
    from colddiff.tracking.mlflow_service import client

    api = client(result["tracking"]["uri"])
    run = api.get_run(result["tracking"]["run_id"])
    assert run.info.status == "FINISHED"
    assert run.data.tags["colddiff.job_id"] == folder.job_id
    return [m.step for m in api.get_metric_history(run.info.run_id, "train/loss_l1")]
