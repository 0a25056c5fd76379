"""A storage that is moved or copied, and a job whose outputs are gone: what there is decides."""

from __future__ import annotations

import json
import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import colddiff
from colddiff.checkpoints.references import find_checkpoint, load_checkpoint
from colddiff.errors import CheckpointError
from colddiff.spec import parse
from colddiff.verbs.train.job import TrainJob
from tests.forked import Forked
from tests.tiny_checkpoint import tiny_checkpoint
from tests.unit.generation.trained import TRAIN, train_tiny


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, tracker_database: Path) -> Path:
    root = tmp_path_factory.mktemp("trained") / "runs"
    train_tiny(root, tracker_database)
    return root


@pytest.fixture
def moved(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[Path, Path]]:
    """(old, new) place of a storage that was moved with ``mv``."""
    new = tmp_path / "elsewhere"
    shutil.copytree(trained, new, symlinks=True)
    aside = trained.with_name("aside")
    trained.rename(aside)
    monkeypatch.setenv("COLDDIFF_STORAGE", str(new))
    monkeypatch.setenv("COLDDIFF_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    yield trained, new
    made = sorted(map(str, trained.rglob("*")))
    shutil.rmtree(trained, ignore_errors=True)
    aside.rename(trained)
    assert made == [], "something was made at the old place"


def again(**changes: Any) -> dict[str, Any]:
    return colddiff.train(parse(TrainJob, {**TRAIN, **changes}), "tiny")


def go_on() -> None:
    print(json.dumps(again(num_steps=2)))


def job_folder(storage: Path) -> Path:
    (folder,) = (storage / "jobs").iterdir()
    return folder


def runs(storage: Path) -> list[tuple[str, str]]:
    """(id, address of the artifacts) of each MLflow run."""
    database = sqlite3.connect(storage / "mlflow.db")
    found = database.execute(
        "SELECT run_uuid, artifact_uri FROM runs WHERE lifecycle_stage = 'active'"
    ).fetchall()
    database.close()
    return found


def test_a_moved_job_is_done_at_its_new_place(moved: tuple[Path, Path]) -> None:
    old, new = moved
    result = again()
    folder = job_folder(new)
    assert result["checkpoint"] == f"{folder}/checkpoints/step_00000001"
    assert [path.name for path in (folder / "attempts").iterdir()] == ["1"]
    for name in ("result.json", "job.json"):
        written = json.loads((folder / name).read_text())
        assert str(old) not in json.dumps({**written, "spec": None})
    assert load_checkpoint(result["checkpoint"]).step == 1
    assert load_checkpoint(f"{folder.name}@best").step == 1


def test_a_moved_job_goes_on_in_its_one_run(moved: tuple[Path, Path]) -> None:
    _, new = moved
    ((run_id, _),) = runs(new)
    # In a process of its own: MLflow remembers the places of runs that this one has logged to.
    process = Forked(go_on)
    printed, said = process.communicate()
    assert process.returncode == 0, said
    result = json.loads(printed)
    ((same, artifacts),) = runs(new)
    assert same == run_id
    assert artifacts == f"{new}/mlflow-artifacts/{run_id}/artifacts"
    assert (Path(artifacts) / "checkpoints.json").exists()
    assert result["tracking"]["run_id"] == run_id
    assert find_checkpoint(f"mlflow:{run_id}").uri == result["checkpoint"]


def test_a_run_is_found_where_its_job_is_before_the_job_ran_there(
    moved: tuple[Path, Path],
) -> None:
    _, new = moved
    ((run_id, _),) = runs(new)
    assert find_checkpoint(f"mlflow:{run_id}").storage.startswith(str(new))


@pytest.fixture
def here(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a finished job, in a storage of its own."""
    storage = tmp_path / "runs"
    shutil.copytree(trained, storage, symlinks=True)
    monkeypatch.setenv("COLDDIFF_STORAGE", str(storage))
    monkeypatch.setenv("COLDDIFF_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return job_folder(storage)


def no_result(folder: Path) -> None:
    (folder / "result.json").unlink()


def no_checkpoints(folder: Path) -> None:
    shutil.rmtree(folder / "checkpoints")


def no_commit(folder: Path) -> None:
    (folder / "checkpoints/step_00000001/checkpoint.json").unlink()


def no_weights(folder: Path) -> None:
    (folder / "checkpoints/step_00000001/ema.safetensors").unlink()


def cut_weights(folder: Path) -> None:
    path = folder / "checkpoints/step_00000001/ema.safetensors"
    path.write_bytes(path.read_bytes()[:-1])


def other_step(folder: Path) -> None:
    result = json.loads((folder / "result.json").read_text())
    (folder / "result.json").write_text(json.dumps({**result, "step": 7}))


@pytest.mark.parametrize(
    "gone", [no_result, no_checkpoints, no_commit, no_weights, cut_weights, other_step]
)
def test_a_job_whose_outputs_are_gone_is_not_done(here: Path, gone: Any) -> None:
    gone(here)
    result = again()
    assert sorted(path.name for path in (here / "attempts").iterdir()) == ["1", "2"]
    assert load_checkpoint(result["checkpoint"]).step == 1


def test_a_step_that_was_only_claimed_is_not_believed(here: Path) -> None:
    status = json.loads((here / "status.json").read_text())
    (here / "status.json").write_text(json.dumps({**status, "step": 100, "num_steps": 100}))
    assert again(num_steps=2)["step"] == 2
    assert (here / "checkpoints/step_00000002/checkpoint.json").exists()


def test_a_checkpoint_is_one_by_its_record_whatever_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny_checkpoint(tmp_path / "job", step=3)
    step = tmp_path / "job/checkpoints/step_00000003"
    shutil.copytree(step, tmp_path / "best_model")
    shutil.copytree(step, tmp_path / "copy/step_00000003")
    shutil.copytree(tmp_path / "job/checkpoints", tmp_path / "ckpts")
    shutil.copytree(step, tmp_path / "x@last")
    monkeypatch.chdir(tmp_path)
    by_place = ("best_model", "./best_model/", "best_model@last", str(tmp_path / "best_model"))
    by_step = ("copy/step_00000003", "copy", "ckpts", "ckpts@step=3", "./copy/step_00000003/")
    for name in by_place + by_step:
        assert load_checkpoint(name).step == 3, name
    monkeypatch.chdir(tmp_path / "best_model")
    found = find_checkpoint(".")
    assert (found.uri, found.step, found.job) == (str(tmp_path / "best_model"), 3, None)
    assert load_checkpoint(found.uri).step == 3
    monkeypatch.chdir(tmp_path / "copy")
    assert load_checkpoint("step_00000003").step == 3
    with pytest.raises(CheckpointError, match="no checkpoint of step 4"):
        find_checkpoint("../best_model@step=4")
    with pytest.raises(CheckpointError, match=r"is a file: name the folder"):
        find_checkpoint("../best_model/ema.safetensors")
