"""A tiny checkpoint that can generate, trained for one step on digits."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

import colddiff
from colddiff.spec import parse
from colddiff.verbs.train.job import TrainJob

TRAIN: dict[str, Any] = {
    "data": "digits",
    "image_size": 8,
    "channels": 1,
    "degradation": {"kind": "noise", "num_timesteps": 3},
    "restorer": {"kind": "convnext_unet", "dim": 8, "dim_mults": [1, 2]},
    "global_batch_size": 8,
    "num_steps": 1,
    "evaluation": {"num_images": 8, "batch_size": 8, "severities": 1},
    # Pictures and a page take half as long again.
    "tracking": {"system_every_s": None, "images": False},
}


BLUR = {
    "kind": "blur",
    "num_timesteps": 3,
    "kernel_size": 5,
    "sigma": {"kind": "constant", "value": 2.0},
    "collapse_to_mean": True,
}


def train_tiny(root: Path, database: Path | None = None, /, **changes: Any) -> dict[str, str]:
    """Trains for a step into the storage ``root``: addresses of the job, its test images, root.

    ``database`` is that of an empty tracker (`tracker_database`), which takes a second to set up.
    """
    if database is not None:
        root.mkdir(exist_ok=True)
        shutil.copy(database, root / "mlflow.db")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COLDDIFF_STORAGE", str(root))
        patch.setenv("COLDDIFF_CACHE", str(root / "cache"))
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        result = colddiff.train(parse(TrainJob, {**TRAIN, **changes}), "tiny")
    job = f"{root}/jobs/{result['id']}"
    (test,) = Path(root, "data").glob("digits-*/test")
    return {"job": job, "test": str(test), "storage": str(root)}
