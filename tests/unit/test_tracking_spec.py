"""Where a job's run is put in the tracker: below another job's, with tags of one's own."""

from __future__ import annotations

from pathlib import Path

import pytest

from colddiff.errors import SpecError
from colddiff.jobs import tracking_run
from colddiff.jobs.folder import JobFolder
from colddiff.jobs.job import TrackingSpec
from colddiff.jobs.resolve import ResolvedJob, resolve
from colddiff.jobs.tracking_run import describe_run
from colddiff.spec import parse
from colddiff.stores.memory_store import MemoryStore
from colddiff.tracking.memory_tracker import MemoryTracker
from colddiff.verbs.evaluate.job import EvaluateJob
from colddiff.verbs.train.job import TrainJob

CHECKPOINT = {"checkpoint": "/runs/jobs/train-x-00000001/checkpoints/step_00000060"}


def test_grouping_is_written_only_where_it_is_set() -> None:
    assert not {"parent", "tags"} & TrackingSpec().to_dict().keys()
    spec = parse(TrackingSpec, {"parent": "search-x-00000000", "tags": {"team": "eyes"}})
    assert parse(TrackingSpec, spec.to_dict()) == spec
    assert spec.to_dict()["tags"] == {"team": "eyes"}


@pytest.mark.parametrize("tag", ["colddiff.job_id", "mlflow.parentRunId"])
def test_tags_that_find_a_run_are_not_the_users(tag: str) -> None:
    with pytest.raises(SpecError, match=rf"tracking.tags: {tag} is set by colddiff"):
        parse(TrackingSpec, {"tags": {tag: "x"}}, "tracking")


def test_a_parent_must_be_a_job_of_the_storage(tmp_path: Path) -> None:
    job = TrainJob(data="digits", tracking=TrackingSpec(parent="search-x-00000000"))
    with pytest.raises(SpecError, match=r"tracking.parent: no job 'search-x-00000000' in"):
        resolve(job, "x", storage=str(tmp_path))


@pytest.mark.parametrize("parent", ["../..", "a/b", "", "."])
def test_a_parent_is_an_id(parent: str) -> None:
    with pytest.raises(SpecError, match=r"^tracking\.parent: is the id of a job, got '"):
        parse(TrackingSpec, {"parent": parent}, "tracking")


@pytest.mark.parametrize(
    ("slug", "fields", "of"),
    [
        ("job", CHECKPOINT, " of train-x-00000001@step=60"),
        ("job", {"samples": "s3://b/samples/generate-x-00000002"}, " of generate-x-00000002"),
        ("mine", CHECKPOINT, ""),
    ],
)
def test_a_run_of_a_job_without_a_name_says_what_it_is_made_from(
    monkeypatch: pytest.MonkeyPatch, slug: str, fields: dict[str, str], of: str
) -> None:
    asked: list[object] = []
    monkeypatch.setattr(tracking_run, "open_run", lambda *words, wait: asked.extend(words))
    job = parse(EvaluateJob, fields, "evaluate")
    resolved = ResolvedJob("evaluate-x-00000000", slug, job, "/nowhere", "", {}, 1.0, {}, {})
    tracking_run.open_tracker(resolved)
    assert asked[-1] == f"evaluate-x-00000000{of}"


def test_a_run_has_its_parent_and_its_tags_and_no_params_of_them() -> None:
    tracking = TrackingSpec(parent="search-x-00000000", tags={"team": "eyes"})
    folder = JobFolder(MemoryStore(), "train-x-00000000")
    folder.write_job({})
    job = TrainJob(data="digits", tracking=tracking)
    resolved = ResolvedJob(folder.job_id, "x", job, "/nowhere", "", {}, 1.0, {}, {})
    tracker = MemoryTracker()
    describe_run(tracker, resolved, folder, "ann")
    assert tracker.run.tags["mlflow.user"] == "ann"
    assert tracker.run.parent == "search-x-00000000"
    assert tracker.run.tags["team"] == "eyes"
    assert not [name for name in tracker.run.params if "parent" in name or "tags" in name]
    assert tracker.run.params["tracking.experiment"] == "colddiff"
