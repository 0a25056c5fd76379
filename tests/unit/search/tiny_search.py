"""A search whose trials take seconds: a small network, a few steps and a few images."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from colddiff.jobs.folder import JobFolder, list_jobs
from colddiff.stores.open import open_store
from colddiff.verbs.search.trials import Trial, read_trials

BASE: dict[str, Any] = {
    "data": "digits",
    "image_size": 16,
    "channels": 1,
    "degradation": {
        "kind": "blur",
        "num_timesteps": 6,
        "kernel_size": 5,
        "sigma": {"kind": "exponential", "start": 0.5, "end": 2.0},
        "padding": "reflect",
    },
    "restorer": {"kind": "convnext_unet", "dim": 4, "dim_mults": [1, 2]},
    "global_batch_size": 8,
    "optimizer": {"lr": 1e-3},
    "ema": {"decay": 0.5, "every": 1, "start": 0},
    "num_steps": 4,
    "checkpoint_every": 2,
    "evaluation": {"num_images": 16, "batch_size": 16, "samplers": ["direct", "improved"]},
}
SEARCH: dict[str, Any] = {
    "ranges": {"degradation.num_timesteps": {"low": 6, "high": 12}},
    "num_trials": 3,
    "max_concurrent": 1,
    "rungs": [0.5, 1.0],
    "confirm_seeds": 0,
    # Pictures are a third of what a tiny search takes: drawn where a test looks at them (DRAWN).
    "tracking": {"system_every_s": None, "images": False},
}
DRAWN: dict[str, Any] = {"tracking": {"system_every_s": None}}


def tiny_search(base: dict[str, Any] | None = None, **fields: Any) -> dict[str, Any]:
    """Fields of a search job of ``BASE``, with other fields of the base and of the search."""
    return {**SEARCH, "base": {**BASE, **(base or {})}, **fields}


def write_search(path: Path, **fields: Any) -> Path:
    """The same as a job file, which JSON is too."""
    path.write_text(json.dumps({"search": tiny_search(**fields)}))
    return path


def folder_of(storage: Path) -> JobFolder:
    """The folder of the one search in a storage."""
    store = open_store(str(storage))
    (found,) = [job_id for job_id in list_jobs(store) if job_id.startswith("search-")]
    return JobFolder(store, found)


def trials_of(storage: Path) -> list[Trial]:
    """The records of the one search in a storage."""
    return read_trials(folder_of(storage))


def trained(storage: Path) -> set[str]:
    """Ids of the training jobs in a storage."""
    return {job_id for job_id in list_jobs(open_store(str(storage))) if job_id.startswith("train-")}
