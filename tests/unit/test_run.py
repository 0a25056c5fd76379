"""A whole training job in this process: done once, extended, resumed, limited, refused."""

from __future__ import annotations

import json
import os
import shutil
import signal
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import colddiff
from colddiff.checkpoints.references import find_checkpoint, load_checkpoint
from colddiff.data.open import read_manifest
from colddiff.errors import (
    CheckpointError,
    ColddiffError,
    DataError,
    SpecError,
    Stopped,
    TrackerError,
)
from colddiff.jobs.folder import JobFolder
from colddiff.jobs.in_process import run_here
from colddiff.jobs.resolve import ResolvedJob, resolve
from colddiff.spec import parse
from colddiff.stores.open import open_store
from colddiff.verbs.train.job import TrainJob

TINY: dict[str, Any] = {
    "data": "digits",
    "image_size": 16,
    "channels": 1,
    "degradation": {
        "kind": "blur",
        "num_timesteps": 4,
        "kernel_size": 5,
        "sigma": {"kind": "constant", "value": 1.2},
    },
    "restorer": {"kind": "convnext_unet", "dim": 8, "dim_mults": [1, 2]},
    "global_batch_size": 8,
    "num_steps": 4,
    "checkpoint_every": 2,
    "evaluation": {"num_images": 16, "batch_size": 16},
}
# Pictures and a page take as long as the rest of so small a job: for tests that look at them.
DRAWN: dict[str, Any] = {"system_every_s": None}
QUIET: dict[str, Any] = {**DRAWN, "images": False}


def job(**changes: Any) -> TrainJob:
    return parse(TrainJob, {**TINY, "tracking": QUIET, **changes})


def test_train_is_done_once_and_goes_on_when_asked_for_more(
    storage: Path, packed: dict[str, str]
) -> None:
    first = colddiff.train(job(**packed, tracking=DRAWN), "tiny")
    assert (first["step"], first["local"]) == (4, True)
    assert {"eval/degraded/fd_lenet", "eval/sampled/rmse"} <= first["metrics"].keys()
    assert len(first["pictures"]) > 2
    assert all(Path(picture).stat().st_size > 0 for picture in first["pictures"])
    folder = JobFolder(open_store(str(storage)), first["id"])
    assert colddiff.train(job(**packed), "tiny") == first
    assert folder.attempts() == [1]
    more = colddiff.train(job(**packed, num_steps=6), "tiny")
    assert (more["id"], more["step"]) == (first["id"], 6)
    assert folder.attempts() == [1, 2]
    status = folder.status()
    assert status
    assert (status.state, status.step, status.num_steps) == ("done", 6, 6)


def test_evaluations_on_the_way_and_references(storage: Path, packed: dict[str, str]) -> None:
    result = colddiff.train(job(**packed, evaluate_every=2, num_steps=6, keep=9), "tiny")
    folder = JobFolder(open_store(str(storage)), result["id"])
    assert folder.evaluated_steps() == [2, 4, 6]
    assert find_checkpoint(result["id"]).step == 6
    assert find_checkpoint(f"{folder.uri}@step=2").step == 2
    assert find_checkpoint(f"{folder.uri}/checkpoints/step_00000004").step == 4
    assert find_checkpoint(f"{result['id']}@best").step == result["best_step"]
    loaded = load_checkpoint(result["id"])
    assert loaded.step == 6
    assert loaded.spec.degradation == job().degradation
    for wrong in ("nowhere", f"{result['id']}@step=3", str(storage / "data")):
        with pytest.raises(CheckpointError):
            find_checkpoint(wrong)


def test_another_job_can_start_from_its_weights(storage: Path, packed: dict[str, str]) -> None:
    first = colddiff.train(job(**packed), "tiny")
    resolved = resolve(job(**packed, start_from=first["id"]), "tiny")
    assert resolved.id != first["id"]
    assert resolved.job_as(TrainJob).start_from == first["checkpoint"]
    second = colddiff.train(job(**packed, start_from=first["id"], num_steps=1), "tiny")
    begun = load_checkpoint(second["id"], "model").restorer.state_dict()
    before = load_checkpoint(first["id"], "ema").restorer.state_dict()
    # One Adam step of 2e-5 moves no weight further than that.
    assert max(float((begun[k] - before[k]).abs().max()) for k in before) < 3e-5


def test_weights_to_start_from_are_not_needed_once_a_job_has_its_own(
    storage: Path, packed: dict[str, str]
) -> None:
    first = colddiff.train(job(**packed), "tiny")
    began, waits = (
        resolve(job(**packed, start_from=first["id"], num_steps=2, seed=seed), "tiny")
        for seed in (0, 1)
    )
    store = open_store(str(storage))
    for resolved in (began, waits):
        JobFolder(store, resolved.id).write_job(resolved.to_dict())
    assert run_here(began, 1) == 0
    shutil.rmtree(storage / "jobs" / first["id"] / "checkpoints")
    more = replace(began, job=began.job_as(TrainJob).model_copy(update={"num_steps": 4}))
    assert run_here(more, 2) == 0
    assert load_checkpoint(began.id).step == 4
    # One that has none says which weights it cannot find.
    assert run_here(waits, 1) == 1
    status = JobFolder(store, waits.id).status()
    assert status
    assert first["checkpoint"] in status.message


def test_sigterm_takes_a_checkpoint_first(storage: Path, packed: dict[str, str]) -> None:
    """A machine that is shut down says so; the same job goes on from there."""
    resolved = resolve(job(**packed, num_steps=100_000, checkpoint_every=100_000), "tiny")
    folder = JobFolder(open_store(str(storage)), resolved.id)
    folder.write_job(resolved.to_dict())

    def terminate() -> None:
        while (status := folder.status()) is None or not status.step:
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGTERM)

    missed: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, _: missed.append(number))
    try:
        threading.Thread(target=terminate, daemon=True).start()
        assert run_here(resolved, 1) == 4
        os.kill(os.getpid(), signal.SIGTERM)  # no longer the job's
        assert missed == [signal.SIGTERM]
    finally:
        signal.signal(signal.SIGTERM, before)
    reached = load_checkpoint(resolved.id).step
    status = folder.status()
    assert status
    assert (status.state, status.step) == ("stopped", reached)
    assert 0 < reached < 100_000
    few = resolved.job_as(TrainJob).model_copy(update={"num_steps": reached + 1})
    assert run_here(replace(resolved, job=few), 2) == 0
    assert load_checkpoint(resolved.id).step == reached + 1


def test_a_limit_stops_with_a_checkpoint_and_says_which(
    storage: Path, packed: dict[str, str]
) -> None:
    with pytest.raises(Stopped, match=r"limits.hours=1e-07 reached: stopped after step \d+"):
        colddiff.train(job(**packed, num_steps=100_000, limits={"hours": 1e-7}), "tiny")


def test_data_that_changed_since_submission_is_refused(
    storage: Path, packed: dict[str, str]
) -> None:
    resolved = resolve(job(**packed), "tiny")
    altered = {**resolved.to_dict(), "content": {"data": "0" * 64}}
    folder = JobFolder(open_store(resolved.storage), resolved.id)
    folder.write_job(altered)
    assert run_here(ResolvedJob.from_dict(altered), 1) == 1
    status = folder.status()
    assert status
    assert "has changed since the job was submitted" in status.message


def test_a_resolved_job_survives_json(storage: Path, packed: dict[str, str]) -> None:
    resolved = resolve(job(**packed), "tiny")
    assert ResolvedJob.from_dict(json.loads(json.dumps(resolved.to_dict()))) == resolved


def test_equal_images_elsewhere_are_the_same_job(storage: Path, packed: dict[str, str]) -> None:
    assert resolve(job(), "tiny").id == resolve(job(**packed), "tiny").id
    assert resolve(job(), "tiny", new=True).id != resolve(job(), "tiny").id


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"data": None}, SpecError, "data: is required: .*colddiff data pack SOURCE"),
        ({"data": "/nowhere"}, DataError, "/nowhere"),
        ({"data": "mnist:/nowhere"}, DataError, "/nowhere"),
        ({"image_size": 32, "degradation": {"kind": "blur"}}, DataError, "the job needs 1x32x32"),
    ],
)
def test_bad_data_is_one_clear_error(
    storage: Path,
    packed: dict[str, str],
    changes: dict[str, Any],
    error: type[ColddiffError],
    message: str,
) -> None:
    with pytest.raises(error, match=message) as caught:
        resolve(job(**{**packed, **changes}), "tiny")
    assert "\n" not in str(caught.value)


def test_a_remote_cluster_needs_addresses_all_nodes_can_reach(
    storage: Path, packed: dict[str, str]
) -> None:
    with pytest.raises(SpecError, match=r"storage .* is on this machine but the cluster is not"):
        resolve(job(**packed), "tiny", remote=True)
    assert resolve(job(**packed), "tiny", remote=True, shared_path=True).id


def test_a_tracking_server_that_is_not_there_is_found_out_at_submission(
    storage: Path, packed: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    with pytest.raises(TrackerError, match=r"127\.0\.0\.1:9.*start it, unset MLFLOW_TRACKING_URI"):
        resolve(job(**packed), "tiny")
    assert resolve(job(**packed, tracking={**QUIET, "required": False}), "tiny").id


def test_one_folder_is_split_and_two_are_taken_whole(storage: Path, tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        for n in range(30):
            Image.new("L", (16, 16), n).save(tmp_path / name / f"{n}.png")

    def counts(**changes: Any) -> tuple[int, int]:
        found = resolve(job(**changes, evaluation={"num_images": 2}), "folders").job_as(TrainJob)
        assert found.data
        assert found.test_data
        return read_manifest(found.data).count, read_manifest(found.test_data).count

    a, b = f"folder:{tmp_path / 'a'}", f"folder:{tmp_path / 'b'}"
    train, test = counts(data=a)
    assert train + test == 30
    assert test > 0
    assert counts(data=a, test_data=b) == (30, 30)
