"""Pictures of real searches: measured from the trials' folders, written, and never in the way."""

from __future__ import annotations

import base64
import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import colddiff
from colddiff.data.open import open_shards
from colddiff.jobs.attempt import Attempt
from colddiff.jobs.folder import JobFolder, list_jobs
from colddiff.jobs.resolve import ResolvedJob
from colddiff.severity_profile import measure_severity_profile
from colddiff.stores.open import open_store
from colddiff.transforms import eight_bit
from colddiff.verbs.search.pictures.gallery import drawn_axes, drawn_point
from colddiff.verbs.search.pictures.measure import measured_path, measured_strips
from colddiff.verbs.search.points.space import Dimension
from colddiff.verbs.search.search_task import SearchTask
from colddiff.verbs.search.trials import Trial
from colddiff.verbs.search.work import prepare
from tests.unit.search.tiny_search import DRAWN, folder_of, tiny_search, trials_of

STRAIGHT: dict[str, Any] = {"scheduler": "none", "rungs": [1.0], "searcher": "random"}


RANKED = "eval/sampled/fd_lenet"


@pytest.fixture(scope="module")
def finished(
    tmp_path_factory: pytest.TempPathFactory,
    split_digits: Path,
    tracker_database: Path,
    unpacked: Path,
) -> Iterator[tuple[Path, dict[str, Any]]]:
    """A storage with a finished search of two trials, and its result."""
    storage = tmp_path_factory.mktemp("gallery") / "runs"
    shutil.copytree(split_digits, storage / "data")
    shutil.copy(tracker_database, storage / "mlflow.db")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COLDDIFF_STORAGE", str(storage))
        patch.setenv("COLDDIFF_CACHE", str(unpacked))
        yield (
            storage,
            colddiff.search(tiny_search(num_trials=2, metric=RANKED, **STRAIGHT, **DRAWN), "tiny"),
        )


def evaluations(storage: Path) -> dict[str, dict[str, Any]]:
    """``job.json`` of the evaluations of finalists, by id."""
    store = open_store(str(storage))
    ids = [job_id for job_id in list_jobs(store) if job_id.startswith("evaluate-")]
    return {job_id: JobFolder(store, job_id).job()["spec"] for job_id in ids}


def page_of(storage: Path) -> str:
    folder = folder_of(storage)
    return folder.store.get(folder.key("leaderboard.html")).decode()


def task_of(storage: Path) -> SearchTask:
    resolved = ResolvedJob.from_dict(folder_of(storage).job())
    return prepare(Attempt(resolved, 1))


def test_pictures_are_in_the_folder_and_on_the_page(finished: tuple[Path, dict[str, Any]]) -> None:
    storage, result = finished
    names = ["paths", "map", "calls", "strips", "rungs"]
    place = storage / "jobs" / result["id"] / "pictures"
    assert result["pictures"] == [str(place / f"{name}.png") for name in names]
    page = page_of(storage)
    assert result["page"].endswith("/leaderboard.html")
    embedded = re.findall(r"data:image/png;base64,([A-Za-z0-9+/=]+)", page)
    assert [base64.b64decode(data) for data in embedded] == [
        (place / f"{name}.png").read_bytes() for name in names
    ]
    assert "fd_lenet" in re.findall(r'<div class="verdict"><p>(.*?)</p>', page)[0]
    assert "Not confirmed on fresh seeds" in page
    assert "too few trials to say (2 with a value" in page
    # MLflow has what the folder has.
    run = result["tracking"]["run_id"]
    from mlflow.tracking import MlflowClient

    client = MlflowClient(result["tracking"]["uri"])
    logged = {item.path for item in client.list_artifacts(run, "pictures")}
    assert logged == {f"pictures/{name}.png" for name in names}


def test_finalists_are_evaluated_with_fewer_calls_on_validation_images(
    finished: tuple[Path, dict[str, Any]],
) -> None:
    storage, _ = finished
    task, found = task_of(storage), evaluations(storage)
    wanted = []
    for trial in trials_of(storage):
        calls = trial.point["degradation.num_timesteps"]
        parts = sorted({max(1, round(calls * part)) for part in (0.5, 0.25, 0.125)})
        wanted += [(trial.job_id, n) for n in parts]
    made = [(job["checkpoint"].split("/")[-3], job["severities"]) for job in found.values()]
    assert sorted(made) == sorted(wanted)
    assert {job["test_data"] for job in found.values()} == {task.splits.validation}
    store = open_store(str(storage))
    values = [
        JobFolder(store, job_id).result()["metrics"][task.metric]  # type: ignore[index]
        for job_id in found
    ]
    (alt,) = re.findall(r'alt="(fd_lenet over network calls[^"]*)"', page_of(storage))
    assert all(f"{value:.0f} with " in alt for value in values)


def test_a_path_is_what_d_removes_and_ends_at_the_common_end(
    finished: tuple[Path, dict[str, Any]],
) -> None:
    storage, result = finished
    task = task_of(storage)
    base, other = trials_of(storage)
    removed, schedules = measured_path(task, base)
    D = task.base.degradation.build(task.base.shape)
    profile = measure_severity_profile(D, task.x0, task.omega)
    np.testing.assert_allclose(removed.y, profile.rmse, rtol=1e-5)
    assert removed.x == pytest.approx([t / 6 for t in range(7)])
    (sigma,) = schedules.values()
    assert list(schedules) == ["sigma (px)"]
    assert (sigma.y[0], sigma.y[-1]) == pytest.approx((0.5, 2.0))
    assert sigma.x[0] == pytest.approx(1 / 6)
    assert measured_path(task, other)[0].y[-1] == pytest.approx(result["end_rmse"], rel=1e-3)


def test_strips_are_of_the_first_validation_image_at_equal_places(
    finished: tuple[Path, dict[str, Any]],
) -> None:
    storage, _ = finished
    task, (base, _) = task_of(storage), trials_of(storage)
    found = measured_strips(task, [("base", base)], str(storage))
    assert found is not None
    (strip,) = found.strips
    source = open_shards(task.splits.validation)
    assert np.array_equal(strip.degraded[-1], source.images(0, 1)[0])
    x0 = torch.from_numpy(source.images(0, 1)).float() / 127.5 - 1
    D = task.base.degradation.build(task.base.shape)
    assert np.array_equal(strip.degraded[0], eight_bit(D.degrade(x0, torch.tensor([6])))[0])
    assert np.array_equal(strip.restored[0], strip.degraded[0])
    assert not np.array_equal(strip.restored[-1], strip.degraded[0])
    assert found.sampler == "Algorithm 2 (improved)"
    assert measured_strips(task, [], str(storage)) is None


def test_an_extended_search_draws_again_and_evaluates_nothing_twice(
    finished: tuple[Path, dict[str, Any]],
) -> None:
    storage, result = finished
    before = evaluations(storage)
    paths = storage / "jobs" / result["id"] / "pictures" / "paths.png"
    drawn = paths.read_bytes()
    more = colddiff.search(tiny_search(num_trials=3, metric=RANKED, **STRAIGHT, **DRAWN), "tiny")
    assert more["id"] == result["id"]
    assert paths.read_bytes() != drawn
    store = open_store(str(storage))
    assert all(JobFolder(store, job_id).attempts() == [1] for job_id in before)
    assert before.keys() <= evaluations(storage).keys()


def test_nothing_is_drawn_without_images_and_what_cannot_be_drawn_is_named(
    storage: Path, caplog: pytest.LogCaptureFixture
) -> None:
    result = colddiff.search(tiny_search(num_trials=2, **STRAIGHT), "tiny")
    assert result["pictures"] == []
    assert not list(storage.rglob("*.png"))
    assert not evaluations(storage)
    page = page_of(storage)
    assert "<img" not in page
    assert '<tr class="base">' in page
    assert "on validation images" in page

    # With images now, but without the checkpoints that some of them need.
    for trial in trials_of(storage):
        shutil.rmtree(storage / "jobs" / trial.job_id / "checkpoints")
    with caplog.at_level("WARNING"):
        result = colddiff.search(tiny_search(num_trials=3, **STRAIGHT, **DRAWN), "tiny")
    told = [record.getMessage() for record in caplog.records]
    assert any(text.startswith("strips.png could not be made: ") for text in told)
    assert any("trial 0 with 3 network calls was not evaluated: " in text for text in told)
    assert [Path(uri).name for uri in result["pictures"]] == [
        "paths.png",
        "map.png",
        "calls.png",
        "rungs.png",
    ]
    assert (
        json.loads((storage / "jobs" / result["id"] / "status.json").read_text())["state"] == "done"
    )


def trial(number: int, **point: Any) -> Trial:
    return Trial(
        number, 0, {f"a.{name}": value for name, value in point.items()}, None, None, {}, "", 0
    )


def test_a_choice_of_the_base_alone_is_on_its_axis() -> None:
    space = (
        Dimension("a.kind", choices=("linear", "exponential")),
        Dimension("a.n", 2, 9, integer=True, log=True),
    )
    trials = [trial(0, kind="constant", n=20), trial(1, kind="linear", n=4), trial(2, n=3)]
    kind, n = axes = drawn_axes(space, trials)
    assert kind.choices == ("linear", "exponential", "constant")
    assert (n.log, n.ends, n.label) == (True, (2, 9), "n")
    points = [drawn_point(space, axes, each.point) for each in trials]
    assert points[:2] == [(2.0, 20.0), (0.0, 4.0)]
    assert np.isnan(points[2][0])
