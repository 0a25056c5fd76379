"""A tiny checkpoint that generates, trained once for the tests of whole jobs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import colddiff
from colddiff.jobspec import TrainJob
from colddiff.spec import parse

TRAIN: dict[str, Any] = {
    "data": "digits",
    "image_size": 8,
    "channels": 1,
    "degradation": {"kind": "noise", "num_timesteps": 3},
    "restorer": {"kind": "convnext_unet", "dim": 8, "dim_mults": [1, 2]},
    "global_batch_size": 8,
    "num_steps": 1,
    "evaluation": {"num_images": 8, "batch_size": 8, "severities": 1},
}


BLUR = {
    "kind": "blur",
    "num_timesteps": 3,
    "kernel_size": 5,
    "sigma": {"kind": "constant", "value": 2.0},
    "collapse_to_mean": True,
}


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Address of a checkpoint's job, of the images it was tested on, and of their storage."""
    return _trained(tmp_path_factory.mktemp("trained"))


@pytest.fixture(scope="session")
def blurred(trained: dict[str, str]) -> dict[str, str]:
    """As ``trained``, with a blur whose terminal is a mixture of one Gaussian."""
    return _trained(Path(trained["storage"]), degradation=BLUR)


def _trained(root: Path, **changes: Any) -> dict[str, str]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COLDDIFF_STORAGE", str(root))
        patch.setenv("COLDDIFF_CACHE", str(root / "cache"))
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        result = colddiff.train(parse(TrainJob, {**TRAIN, **changes}), "tiny")
    job = f"{root}/jobs/{result['id']}"
    (test,) = Path(root, "data").glob("digits-*/test")
    return {"job": job, "test": str(test), "storage": str(root)}


@pytest.fixture
def storage(tmp_path: Path, trained: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty STORAGE of this test's own, named by the environment; the tracker is shared."""
    monkeypatch.setenv("COLDDIFF_STORAGE", str(tmp_path / "runs"))
    monkeypatch.setenv("COLDDIFF_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{trained['storage']}/mlflow.db")
    return tmp_path / "runs"
