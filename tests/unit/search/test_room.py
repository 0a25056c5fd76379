"""How many trials a cluster has room for, and what is refused before anything starts."""

from __future__ import annotations

from typing import Any

import pytest

from colddiff.cluster.capacity import reported_capacity
from colddiff.errors import SpecError
from colddiff.jobs.runner import Capacity
from colddiff.jobs.segments.room import fitting_at_once
from colddiff.jobs.verb import VERBS
from colddiff.spec import parse
from colddiff.verbs.search.job import SearchJob
from colddiff.verbs.search.room import needs_of, refuse_no_room
from tests.unit.search.bases import train_job
from tests.unit.search.tiny_search import tiny_search

FOUR = {"CPU": 4.0, "memory": 1e9}
THREE = {"CPU": 3.0}
GPUS = {"CPU": 16.0, "GPU": 2.0, "accelerator_type:A100": 1.0}


def search(**fields: Any) -> SearchJob:
    return parse(SearchJob, tiny_search(**{"max_concurrent": 8, **fields}))


@pytest.mark.parametrize(
    ("workers", "resources", "machines", "at_once"),
    [
        (1, {"cpus": 1}, [FOUR], 4),
        (2, {"cpus": 1}, [FOUR], 2),
        (3, {"cpus": 1}, [FOUR], 1),
        (2, {"cpus": 1}, [FOUR, FOUR], 4),
        # 9 CPUs, but each worker needs two on one machine.
        (2, {"cpus": 2}, [THREE, THREE, THREE], 1),
        (1, {"cpus": 0.5}, [FOUR], 8),
        (2, {"cpus": 4, "gpus": 1}, [FOUR, GPUS, GPUS], 2),
        (1, {"cpus": 1, "gpus": 0.5}, [GPUS], 4),
        (1, {"cpus": 1, "gpus": 1, "accelerator": "A100"}, [GPUS], 2),
        ([1, 2], {"cpus": 1}, [FOUR], 2),
        # As many as there is room for, at least one of them.
        ([1, 8], {"cpus": 1}, [FOUR], 1),
        ("all", {"cpus": 1}, [FOUR], 1),
    ],
)
def test_no_trial_waits_for_machines_that_another_holds(
    workers: Any, resources: dict[str, Any], machines: list[Any], at_once: int
) -> None:
    needs = needs_of(search(resources=resources), train_job(workers=workers))
    capacity = Capacity(tuple(machines))
    refuse_no_room(needs, capacity)
    assert fitting_at_once(8, needs, capacity) == at_once
    assert fitting_at_once(1, needs, capacity) == 1


@pytest.mark.parametrize(
    ("workers", "resources", "message"),
    [
        (1, {"cpus": 5}, "resources.cpus: a trial needs CPU 5, no machine of the cluster has over"),
        (2, {"cpus": 1, "gpus": 1}, "resources.gpus: a trial needs GPU 1, no machine of the"),
        (
            1,
            {"cpus": 1, "accelerator": "H100"},
            "resources.accelerator: a trial needs H100, no machine of the cluster has it",
        ),
        (9, {"cpus": 1}, "base.workers: a trial needs 9 workers with 1 CPU, the cluster has room"),
        ([9, 12], {"cpus": 1}, "base.workers: a trial needs 9 workers with 1 CPU, the cluster has"),
    ],
)
def test_too_small_a_cluster_is_refused(
    workers: Any, resources: dict[str, Any], message: str
) -> None:
    needs = needs_of(search(resources=resources), train_job(workers=workers))
    with pytest.raises(SpecError, match=message.split("(", maxsplit=1)[0]):
        refuse_no_room(needs, Capacity((FOUR, FOUR)))
    grows = Capacity((FOUR, FOUR), grows=True)
    refuse_no_room(needs, grows)
    assert fitting_at_once(8, needs, grows) == 8


def test_a_trial_that_only_samples_needs_one_worker() -> None:
    job = search(base={"checkpoint": "train-x-01234567@best"}, resources={"cpus": 2})
    assert (needs_of(job).workers, needs_of(job).resources.cpus) == (1, 2)


def test_only_a_place_with_machines_is_asked() -> None:
    job = search(resources={"cpus": 64})
    VERBS["search"].check_capacity(job, lambda: None)
    with pytest.raises(SpecError, match=r"resources\.cpus"):
        VERBS["search"].check_capacity(job, lambda: Capacity((FOUR,)))


def test_what_a_dashboard_reports() -> None:
    """In the form of Ray 2.60: of `ray start --head`, and of one with an autoscaler."""
    node = {"node_id": "5f" * 28, "resources_total": FOUR}
    nodes = [{**node, "state": "ALIVE"}, {**node, "state": "DEAD"}]
    assert reported_capacity(nodes, {}) == Capacity((FOUR,))
    alone = {"autoscalerReport": {"activeNodes": {f"node_{'5f' * 28}": 1}}}
    assert reported_capacity(nodes, alone) == Capacity((FOUR,))
    managed = {"autoscalerReport": {"activeNodes": {"head": 1}}}
    assert reported_capacity(nodes, managed) == Capacity((FOUR,), grows=True)
