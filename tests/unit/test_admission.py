"""A job that its cluster could never hold says so, and waits or is refused, by its verb."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import pytest

from colddiff.cluster import waiting
from colddiff.errors import SpecError
from colddiff.jobs.attempt import Attempt
from colddiff.jobs.in_process import InProcess
from colddiff.jobs.job import ResourcesSpec
from colddiff.jobs.resolve import ResolvedJob, resolve
from colddiff.jobs.runner import Capacity
from colddiff.jobs.segments.room import Needs, what_it_waits_for
from colddiff.jobs.submit import bring_to_end
from colddiff.jobs.verb import VERBS
from colddiff.spec import parse
from tests.unit import test_run
from tests.unit.search.tiny_search import tiny_search
from tests.unit.test_train import job as train_job

THREE = Capacity(({"CPU": 2.0}, {"CPU": 1.0}))
WAIT = "limits.queue_hours=24 waits a day for machines to be added"
GPU = {"resources": {"gpus": 1}}


def job_of(verb: str, **fields: Any) -> Any:
    if verb == "train":
        return train_job(**fields)
    if verb == "search":
        return parse(VERBS["search"].spec(), tiny_search(**fields))
    needed: dict[str, dict[str, Any]] = {
        "generate": {"checkpoint": "train-x-01234567", "num_samples": 1},
        "evaluate": {"samples": "s3://a/b", "reference": "s3://a/c"},
    }
    return parse(VERBS[verb].spec(), {**needed[verb], **fields})


@pytest.mark.parametrize(
    ("verb", "fields", "says"),
    [
        (
            "train",
            {"workers": 9},
            "workers: the job needs 9 workers with 1 CPU, the cluster has room for 3; "
            "workers=[1, 9] starts with what has room",
        ),
        (
            "train",
            GPU,
            "resources.gpus: the job needs GPU 1, no machine of the cluster has over 0; "
            "resources.gpus=auto takes what the cluster has",
        ),
        (
            "generate",
            {"workers": 64, "resources": {"cpus": 3}},
            "resources.cpus: a worker needs CPU 3, no machine of the cluster has over 2",
        ),
        (
            "evaluate",
            {"resources": {"accelerator": "H100"}},
            "resources.accelerator: a worker needs H100, no machine of the cluster has it",
        ),
        ("search", {"resources": {"cpus": 3}}, "resources.cpus: a trial needs CPU 3, no machine"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_it_waits_and_says_so_or_is_refused(verb: str, fields: dict[str, Any], says: str) -> None:
    plain = job_of(verb, **fields)
    waits = f"it waits until machines are added, or until `colddiff stop` ends it: {says}"
    if verb == "search":
        with pytest.raises(SpecError, match=f"^{re.escape(says)}.*; {WAIT}$"):
            what_it_waits_for(plain, lambda: THREE)
    else:
        line = what_it_waits_for(plain, lambda: THREE)
        assert line.startswith(waits)
        assert line.endswith("; limits.queue_hours=N waits N hours at most")
    # It was taken here before: machines that were lost come back.
    assert what_it_waits_for(plain, lambda: THREE, resumed=True).startswith(waits)
    told = job_of(verb, **fields, limits={"queue_hours": 2})
    assert "added, for limits.queue_hours=2 at most, or" in what_it_waits_for(told, lambda: THREE)
    grows = Capacity(THREE.machines, grows=True)
    assert what_it_waits_for(plain, lambda: grows) == ""
    assert what_it_waits_for(plain, lambda: None) == ""


@pytest.mark.parametrize(
    ("verb", "fields"),
    [
        ("train", {"workers": 3}),
        ("train", {"workers": [1, 9]}),
        ("train", {"workers": "all"}),
        ("generate", {"workers": 9, "resources": {"cpus": 2}}),
    ],
)
def test_what_has_room_when_the_cluster_is_idle_is_taken(verb: str, fields: Any) -> None:
    assert what_it_waits_for(job_of(verb, **fields), lambda: THREE) == ""


def test_no_cluster_is_asked_for_one_cpu() -> None:
    def asked() -> Capacity:
        raise AssertionError

    assert what_it_waits_for(job_of("train"), asked) == ""
    assert what_it_waits_for(job_of("evaluate", workers=9), asked) == ""


class Small(InProcess):
    """A cluster of three CPUs that runs nothing."""

    outlives_client = True

    def __init__(self) -> None:
        self.started: list[int] = []

    def capacity(self) -> Any:
        return THREE

    def start(self, resolved: ResolvedJob, attempt: int, accepted: Any) -> None:
        self.started.append(attempt)
        accepted()


def test_a_submission_says_what_it_waits_for(
    storage: Path, packed: Mapping[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "colddiff")
    cluster = Small()
    small = resolve(test_run.job(**packed, workers=3), "tiny")
    assert bring_to_end(small, cluster, detach=True).exit_code == 0
    assert "it waits" not in caplog.text
    large = resolve(test_run.job(**packed, workers=4, seed=1), "tiny")
    assert bring_to_end(large, cluster, detach=True).exit_code == 0
    assert cluster.started == [1, 1]
    assert "it waits until machines are added, or until `colddiff stop` ends it" in caplog.text


def test_a_refused_search_leaves_no_job(storage: Path, packed: Mapping[str, str]) -> None:
    cluster = Small()
    base = {**packed, "workers": 4}
    search = resolve(job_of("search", base={**tiny_search()["base"], **base}), "tiny")
    with pytest.raises(SpecError, match=r"workers: a trial needs 4 workers"):
        bring_to_end(search, cluster, detach=True)
    assert (cluster.started, search.folder.attempts(), search.folder.status()) == ([], [], None)


def test_segments_begin_once_each_could_be_held(monkeypatch: pytest.MonkeyPatch) -> None:
    awaited: list[Needs] = []
    machines = [{"CPU": 1.0}]

    def add_a_machine(attempt: Attempt, needs: Needs) -> None:
        awaited.append(needs)
        machines.append({"CPU": 8.0})

    monkeypatch.setattr(waiting, "connected_capacity", lambda: Capacity(tuple(machines)))
    monkeypatch.setattr(waiting, "await_workers", add_a_machine)
    one, eight, four = (Needs(ResourcesSpec(cpus=cpus)) for cpus in (1, 8, 4))
    waiting.await_machines(cast("Attempt", None), [one, eight, four])
    assert awaited == [eight]
