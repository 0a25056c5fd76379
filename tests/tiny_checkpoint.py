"""A committed checkpoint of a tiny, untrained network, for what only needs one to be there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from colddiff.checkpoints.format import Checkpoints, Snapshot
from colddiff.spec import parse
from colddiff.stores.local_store import LocalStore
from colddiff.verbs.train.job import TrainJob

BLUR: dict[str, Any] = {
    "kind": "blur",
    "num_timesteps": 4,
    "kernel_size": 5,
    "sigma": {"kind": "constant", "value": 1.0},
    "padding": "reflect",
}
RANDOM_INPAINT: dict[str, Any] = {
    "kind": "inpaint",
    "num_timesteps": 4,
    "sigma": {"kind": "linear", "start": 1.0, "step": 1.0},
}


def tiny_job(**fields: Any) -> TrainJob:
    """A job for images of 16 px, grey unless ``channels`` says otherwise."""
    base: dict[str, Any] = {
        "image_size": 16,
        "channels": 1,
        "degradation": BLUR,
        "restorer": {"kind": "convnext_unet", "dim": 8, "dim_mults": [1, 2]},
    }
    return parse(TrainJob, {**base, **fields})


def tiny_checkpoint(folder: Path, *, step: int = 3, **fields: Any) -> str:
    """Commits one to ``folder`` and returns its reference."""
    job = tiny_job(**fields)
    with torch.random.fork_rng():
        torch.manual_seed(5)
        weights = job.restorer.build(job.shape).state_dict()
    state = {"job": job.to_dict(), "step": step, "terminal": None}
    Checkpoints(LocalStore(folder), "checkpoints").save(Snapshot(step, {"ema": weights}, state))
    return str(folder)
