"""Small training jobs that searches start from."""

from __future__ import annotations

from typing import Any

from colddiff.jobs.recipes import list_recipes, load_recipe
from colddiff.verbs.train.job import TrainJob

BLUR: dict[str, Any] = {
    "kind": "blur",
    "num_timesteps": 20,
    "kernel_size": 5,
    "sigma": {"kind": "constant", "value": 0.75},
    "padding": "reflect",
}


def train_job(degradation: dict[str, Any] = BLUR, **fields: Any) -> TrainJob:
    """A training job on 16 px digits with a small restorer."""
    small = {"kind": "convnext_unet", "dim": 8, "dim_mults": [1, 2]}
    size = {"image_size": 16, "channels": 1}
    data = {"data": "digits", **size, "restorer": small, "degradation": degradation}
    return TrainJob.model_validate(data | fields)


def blur_job(sigma: dict[str, Any], **fields: Any) -> TrainJob:
    """The same job with another schedule, or other fields of its blur."""
    return train_job({**BLUR, "sigma": sigma, **fields})


def training_searches() -> list[str]:
    """Recipes whose trials are trained, and not samples of one checkpoint."""
    names = [name for name in list_recipes() if name.startswith("search/")]
    return [name for name in names if not load_recipe(name).sections["search"].get("base")]
