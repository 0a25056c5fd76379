"""A tiny checkpoint that generates, trained once for the tests of whole jobs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from colddiff.jobs.resolve import ResolvedJob, resolve
from colddiff.spec import parse
from colddiff.verbs.generate.job import GenerateJob
from tests.unit.generation.trained import BLUR, train_tiny


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory, tracker_database: Path) -> dict[str, str]:
    """Address of a checkpoint's job, of the images it was tested on, and of their storage."""
    return train_tiny(tmp_path_factory.mktemp("trained"), tracker_database)


@pytest.fixture(scope="session")
def blurred(trained: dict[str, str]) -> dict[str, str]:
    """As ``trained``, with a blur whose terminal is a mixture of one Gaussian."""
    return train_tiny(Path(trained["storage"]), degradation=BLUR)


@pytest.fixture
def storage(tmp_path: Path, trained: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty STORAGE of this test's own, named by the environment; the tracker is shared."""
    monkeypatch.setenv("COLDDIFF_STORAGE", str(tmp_path / "runs"))
    monkeypatch.setenv("COLDDIFF_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{trained['storage']}/mlflow.db")
    return tmp_path / "runs"


@pytest.fixture
def submitted(trained: dict[str, str], storage: Path) -> Callable[..., ResolvedJob]:
    """A resolved job of 25 images in shards of 10, with fields changed."""

    def submit(**changes: Any) -> ResolvedJob:
        fields = {
            "checkpoint": trained["job"],
            "num_samples": 25,
            "shard_size": 10,
            "batch_size": 8,
            "tracking": {"system_every_s": None, "images": False},
            **changes,
        }
        given = {name: value for name, value in fields.items() if value is not None}
        return resolve(parse(GenerateJob, given), "tiny")

    return submit
