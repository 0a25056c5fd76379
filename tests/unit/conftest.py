"""What unit tests share: images packed once, a tracker's database set up once, a STORAGE for gc."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from colddiff.jobs.resolve import resolve
from colddiff.verbs.train.job import TrainJob
from tests.garden import Garden


@pytest.fixture(scope="session")
def packed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Digits packed once, as two addresses."""
    from tests.unit.test_run import job

    root = tmp_path_factory.mktemp("digits")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COLDDIFF_STORAGE", str(root))
        resolved = resolve(job(), "pack")
    assert isinstance(resolved.job, TrainJob)
    assert resolved.job.data
    assert resolved.job.test_data
    return {"data": resolved.job.data, "test_data": resolved.job.test_data}


@pytest.fixture(scope="session")
def unpacked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A COLDDIFF_CACHE where images that several tests train on are decoded once."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def storage(
    tmp_path: Path, unpacked: Path, tracker_database: Path, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """A STORAGE of this test's own, named by the environment, with its own tracker."""
    monkeypatch.setenv("COLDDIFF_STORAGE", str(tmp_path / "runs"))
    monkeypatch.setenv("COLDDIFF_CACHE", str(unpacked))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    (tmp_path / "runs").mkdir()
    shutil.copy(tracker_database, tmp_path / "runs" / "mlflow.db")
    return tmp_path / "runs"


@pytest.fixture
def disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Garden:
    """A STORAGE on disk, and `colddiff gc` on it."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    return Garden(str(tmp_path / "runs"), monkeypatch, capsys)
