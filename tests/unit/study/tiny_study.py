"""A study whose trainings take a second: a small network, a few steps and a few images."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from colddiff.jobs.folder import JobFolder, list_jobs
from colddiff.stores.open import open_store

TRAIN: dict[str, Any] = {
    "data": "digits",
    "image_size": 16,
    "channels": 1,
    "degradation": {
        "kind": "blur",
        "num_timesteps": 4,
        "kernel_size": 5,
        "sigma": {"kind": "constant", "value": 0.75},
        "padding": "reflect",
    },
    "restorer": {"kind": "convnext_unet", "dim": 4, "dim_mults": [1, 2]},
    "global_batch_size": 8,
    "optimizer": {"lr": 1e-3},
    "ema": {"decay": 0.5, "every": 1, "start": 0},
    "num_steps": 4,
    "checkpoint_every": 2,
    "evaluation": {"num_images": 16, "batch_size": 16, "samplers": ["direct", "improved"]},
    "tracking": {"system_every_s": None, "images": False},
}
LR = "optimizer.lr"


def tiny_study(**fields: Any) -> dict[str, Any]:
    """Fields of a study of two jobs, of which one has another learning rate, with two seeds."""
    jobs = [{"train": TRAIN}, {"train": TRAIN, "overrides": {LR: 2e-3}}]
    return {"jobs": jobs, "seeds": 2, **fields}


def write_study(path: Path, **fields: Any) -> Path:
    """A job file with a train section, and a study whose entries vary it."""
    jobs = [{}, {"overrides": {LR: 2e-3}}]
    path.write_text(json.dumps({"train": TRAIN, "study": {"jobs": jobs, "seeds": 2, **fields}}))
    return path


def folder_of(storage: Path) -> JobFolder:
    """The folder of the one study in a storage."""
    store = open_store(str(storage))
    (found,) = [job_id for job_id in list_jobs(store) if job_id.startswith("study-")]
    return JobFolder(store, found)


def members_in(storage: Path) -> list[dict[str, Any]]:
    """What ``members.json`` of the one study in a storage has."""
    folder = folder_of(storage)
    found = json.loads(folder.store.get(folder.key("members.json")))["members"]
    assert isinstance(found, list)
    return found


def trained(storage: Path) -> set[str]:
    """Ids of the training jobs in a storage."""
    return {job_id for job_id in list_jobs(open_store(str(storage))) if job_id.startswith("train-")}


def attempts(storage: Path) -> dict[str, list[int]]:
    """Attempts at each training job in a storage."""
    store = open_store(str(storage))
    return {job_id: JobFolder(store, job_id).attempts() for job_id in trained(storage)}
