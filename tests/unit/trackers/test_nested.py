"""Runs nested in the run of another job: whichever comes first, and also delivered late."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

import pytest

from colddiff.stores.memory_store import MemoryStore
from colddiff.tracking.memory_tracker import MemoryTracker
from colddiff.tracking.mlflow_service import client
from tests.unit.trackers.twins import EXPERIMENT, MlflowTwin


@pytest.fixture
def parent(uri: str) -> MlflowTwin:
    return MlflowTwin(uri, MemoryStore(uuid4().hex))


@pytest.fixture
def child(uri: str, parent: MlflowTwin) -> MlflowTwin:
    """Another job in the parent's storage."""
    return MlflowTwin(uri, parent.store)


def nested_in(uri: str, parent: str) -> list[Any]:
    """What MLflow itself finds below a run."""
    api = client(uri)
    experiment = api.get_experiment_by_name(EXPERIMENT)
    assert experiment is not None
    tag = f"tags.`mlflow.parentRunId` = '{parent}'"
    return list(api.search_runs([experiment.experiment_id], tag))


def test_a_run_is_found_below_the_run_of_its_parent(parent: MlflowTwin, child: MlflowTwin) -> None:
    above, below = parent.open(), child.open()
    below.set_parent(parent.job_id)
    below.set_tags({"mlflow.runName": "trial 3"})
    below.finish("FINISHED")
    above.finish("FINISHED")
    (run,) = nested_in(parent.uri, above.run_id)
    assert (run.info.run_id, run.info.run_name) == (below.run_id, "trial 3")
    found = client(parent.uri).get_parent_run(below.run_id)
    assert found is not None
    assert found.info.run_id == above.run_id


def test_a_child_that_comes_first_makes_its_parents_run(
    parent: MlflowTwin, child: MlflowTwin
) -> None:
    below = child.open()
    below.set_parent(parent.job_id)
    below.finish("FINISHED")
    (made,) = parent.runs()
    above = parent.open()
    assert above.run_id == made
    above.finish("FINISHED")
    assert [run.info.run_id for run in nested_in(parent.uri, made)] == [below.run_id]


@pytest.mark.parametrize("order", [("child", "parent"), ("parent", "child")])
def test_what_both_logged_without_a_tracker_is_nested_when_it_is_delivered(
    parent: MlflowTwin, child: MlflowTwin, nobody: str, order: tuple[str, str]
) -> None:
    above, below = (twin.open(nobody, timeout_s=1) for twin in (parent, child))
    below.set_parent(parent.job_id)
    below.log_metrics({"train/loss_l1": 0.5}, 1)
    below.finish("FINISHED")
    above.log_metrics({"search/best": 7.5}, 1)
    above.finish("FINISHED")
    twins = {"parent": parent, "child": child}
    for name in order:
        assert twins[name].replay() > 0
    (run_id,) = parent.runs()
    assert parent.read().status == "FINISHED"
    assert parent.read().history("search/best") == [(1, 7.5)]
    (run,) = nested_in(parent.uri, run_id)
    assert [run.info.run_id] == child.runs()


def test_a_parents_run_that_was_deleted_is_replaced(parent: MlflowTwin, child: MlflowTwin) -> None:
    above = parent.open()
    above.finish("KILLED")
    client(parent.uri).delete_run(above.run_id)
    below = child.open()
    below.set_parent(parent.job_id)
    below.finish("FINISHED")
    (new,) = parent.runs()
    assert new != above.run_id
    assert len(nested_in(parent.uri, new)) == 1


def test_a_session_that_is_closed_leaves_the_run_to_another_process(
    mlflow: MlflowTwin,
) -> None:
    first, second = mlflow.open(), mlflow.open()
    first.log_metrics({"train/loss_l1": 0.5}, 1)
    first.close()
    assert mlflow.read().status == "RUNNING"
    assert mlflow.read().history("train/loss_l1") == [(1, 0.5)]
    second.finish("FINISHED")
    assert mlflow.read().status == "FINISHED"


def test_in_memory_a_parent_is_a_jobs_id() -> None:
    tracker = MemoryTracker()
    tracker.set_parent("search-x-00000000")
    assert tracker.run.parent == "search-x-00000000"
    tracker.close()
    tracker.set_parent("search-y-00000000")
    tracker.finish("FAILED")
    assert (tracker.run.parent, tracker.run.status) == ("search-x-00000000", "RUNNING")
