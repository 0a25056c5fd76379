"""What Ray Tune is told and asked: segments of a source, and nothing that it could unpickle."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import pytest
from ray.tune.search import Searcher

from colddiff.cluster.ray_segments import (
    HOLDER,
    Placement,
    _SegmentSearcher,
    _trainable,
    on_workers,
    reserved_by,
)
from colddiff.errors import ColddiffError, StoreDenied, StoreError
from colddiff.jobs.attempt import Attempt
from colddiff.jobs.in_process import InProcess
from colddiff.jobs.resolve import ResolvedJob, resolve
from colddiff.jobs.runner import Runner
from colddiff.jobs.segments.here import run_segments_here
from colddiff.jobs.segments.segment import JobSegment, Segment
from colddiff.jobs.status import Status
from colddiff.jobs.verb import VERBS
from colddiff.spec import parse
from colddiff.verbs.search.job import SearchJob
from colddiff.verbs.search.room import needs_of
from tests.unit.search.bases import train_job
from tests.unit.search.tiny_search import tiny_search


class Listed:
    """A ``SegmentSource`` of segments that are known before; an error ends it."""

    def __init__(self, *keys: str, failing: ColddiffError | None = None) -> None:
        self.left: list[Segment] = [JobSegment(key, "tiny", {}, 4) for key in keys]
        self.failing = failing
        self.ended: list[tuple[str, str]] = []

    @property
    def exhausted(self) -> bool:
        return not self.left

    def next(self) -> Segment | None:
        if self.failing is not None:
            error, self.failing = self.failing, None
            raise error
        return self.left.pop(0) if self.left else None

    def finished(self, segment: Segment, error: str) -> None:
        self.ended.append((segment.key, error))
        if error == "fatal":
            raise ColddiffError("the base failed")

    def interrupted(self, segment: Segment) -> None:
        self.left.append(segment)


@pytest.fixture
def attempt(storage: Path) -> Attempt:
    return Attempt(resolve(parse(SearchJob, tiny_search()), "tiny", storage=str(storage)), 1)


def searcher_of(attempt: Attempt, source: Listed, **fields: Any) -> _SegmentSearcher:
    machines = {"up": lambda: ["one"], "lost": lambda machines, within_s: []}
    placement = Placement(2, HOLDER, lambda segment: {}, **{**machines, **fields})
    return _SegmentSearcher(attempt, source, lambda: None, placement)


def test_segments_until_there_are_none(attempt: Attempt) -> None:
    source = Listed("a", "b", "c")
    searcher = searcher_of(attempt, source)
    first, second = searcher.suggest("1"), searcher.suggest("2")
    assert [first["segment"]["key"], second["segment"]["key"]] == ["a", "b"]
    assert searcher.suggest("3") is None  # two at once
    searcher.on_trial_complete("1", result={"error": "", "interrupted": False})
    assert searcher.suggest("3")["segment"]["key"] == "c"
    searcher.on_trial_complete("2", error=True)
    assert searcher.suggest("4") is None
    searcher.on_trial_complete("3", result={"error": "diverged"})
    assert searcher.suggest("4") == Searcher.FINISHED
    assert source.ended == [("a", ""), ("b", "its worker died too often"), ("c", "diverged")]


def test_the_job_of_a_segment_is_of_who_submitted_the_outer_one(
    attempt: Attempt, monkeypatch: pytest.MonkeyPatch
) -> None:
    users: list[str] = []

    def run(segment: object, outer: object, stop_requested: object, runner: InProcess) -> str:
        users.append(runner.claim()["user"])
        return ""

    monkeypatch.setattr(Attempt, "status", Status(user="ann"))
    monkeypatch.setattr(JobSegment, "run", run)
    run_segments_here(attempt, Listed("a"), lambda: None)
    on_ray = searcher_of(attempt, Listed("a")).suggest("1")["runner"]
    assert [*users, InProcess(**on_ray).claim()["user"]] == ["ann", "ann"]


def test_a_stop_starts_nothing_more_and_keeps_what_was_interrupted(attempt: Attempt) -> None:
    source = Listed("a", "b")
    searcher = searcher_of(attempt, source)
    searcher.suggest("1")
    attempt.request_stop()
    assert searcher.suggest("2") is None
    searcher.on_trial_complete("1", result={"error": "stopped", "interrupted": True})
    assert searcher.suggest("2") == Searcher.FINISHED
    assert [segment.key for segment in source.left] == ["b", "a"]
    assert source.ended == []


def test_a_segment_whose_machine_was_lost_is_handed_out_again(
    attempt: Attempt, caplog: pytest.LogCaptureFixture
) -> None:
    def lost(machines: list[str], within_s: float) -> list[str]:
        return ["host-a"] if machines == ["a"] else []

    source, up = Listed("x"), ["a"]
    searcher = searcher_of(attempt, source, up=lambda: list(up), lost=lost)
    for trial in ("1", "2", "3", "4"):
        assert searcher.suggest(trial)["segment"]["key"] == "x"
        searcher.on_trial_complete(trial, error=True)
    assert caplog.messages[0] == "x: lost without notice: host-a"
    # One that takes down each machine that it is placed on ends as well.
    assert searcher.suggest("5") == Searcher.FINISHED
    assert source.ended == [("x", "its worker died too often")]

    source = Listed("y")
    searcher = searcher_of(attempt, source, up=lambda: ["b"], lost=lost)
    searcher.suggest("1")
    searcher.on_trial_complete("1", error=True)
    assert source.ended == [("y", "its worker died too often")]


def test_an_error_ends_it_once_nothing_runs(attempt: Attempt) -> None:
    source = Listed("a", "b", "c")
    searcher = searcher_of(attempt, source)
    searcher.suggest("1"), searcher.suggest("2")
    searcher.on_trial_complete("1", result={"error": "fatal"})
    assert searcher.suggest("3") is None
    searcher.on_trial_complete("2", result={"error": ""})
    assert searcher.suggest("3") == Searcher.FINISHED
    assert str(searcher.error) == "the base failed"

    damaged = searcher_of(attempt, Listed("a", failing=ColddiffError("trials/0.json is damaged")))
    assert damaged.suggest("1") == Searcher.FINISHED
    assert "damaged" in str(damaged.error)


def test_a_segment_that_the_store_denies_twice_ends_it(attempt: Attempt) -> None:
    source = Listed("a", "b")
    searcher = searcher_of(attempt, source)
    refused = {"error": "node x cannot reach s3://b", "denied": True}
    searcher.suggest("1"), searcher.suggest("2")
    for trial in ("1", "2"):
        searcher.on_trial_complete(trial, result=refused)
    # Both may have met the one machine that has no credentials.
    assert searcher.error is None
    assert [searcher.suggest(trial)["segment"]["key"] for trial in ("3", "4")] == ["a", "b"]
    searcher.on_trial_complete("3", result={"error": ""})
    searcher.on_trial_complete("4", result=refused)
    assert searcher.suggest("5") == Searcher.FINISHED
    assert str(searcher.error) == "node x cannot reach s3://b"
    assert source.ended == [("a", "")]


@dataclass(frozen=True, slots=True)
class Denied(Segment):
    """One that is denied access: before there is a job, or by the job itself."""

    kind: ClassVar[str] = "denied"
    nested: bool = False

    def run(
        self, outer: ResolvedJob, stop_requested: Callable[[], bool], runner: Runner | None = None
    ) -> str:
        if not self.nested:
            raise StoreDenied("read jobs/x: no credentials")
        assert runner is not None
        found = replace(outer, id=f"{outer.id}-nested")
        runner.start(found, 1, lambda: None)
        return getattr(found.folder.status(), "message", "")


@pytest.mark.parametrize("nested", [False, True])
def test_a_segment_says_what_a_job_of_its_own_would_where_it_is_denied(
    attempt: Attempt, nested: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def prepare(attempt: Attempt) -> None:
        raise StoreDenied("read jobs/x: no credentials")

    reported: list[dict[str, Any]] = []
    monkeypatch.setattr(VERBS["search"], "prepare", prepare)
    monkeypatch.setattr("ray.util.get_node_ip_address", lambda: "10.0.0.3")
    monkeypatch.setattr("ray.tune.report", reported.append)
    monkeypatch.setattr("colddiff.cluster.ray_segments.log_to_stderr", lambda: None)
    config = {"job": attempt.resolved.to_dict(), "attempt": 1, "runner": {}}
    _trainable((Denied,))(config | {"segment": Denied("a", nested).to_dict()})
    ((report,),) = [reported]
    assert report["denied"]
    storage = attempt.resolved.storage
    assert report["error"] == f"node 10.0.0.3 cannot reach {storage}: read jobs/x: no credentials"


def test_in_this_process_a_second_denial_in_a_row_ends_it(attempt: Attempt) -> None:
    source = Listed()
    source.left = [Denied("a"), Denied("b")]
    with pytest.raises(StoreDenied, match=r"^read jobs/x: no credentials$"):
        run_segments_here(attempt, source, lambda: None)
    assert ([segment.key for segment in source.left], source.ended) == (["a"], [])


def test_a_store_that_is_down_is_waited_for(attempt: Attempt) -> None:
    searcher = searcher_of(attempt, Listed("a", failing=StoreError("the store is down")))
    assert searcher.suggest("1")["segment"]["key"] == "a"
    assert searcher.error is None


def test_a_pickle_of_it_holds_nothing(attempt: Attempt) -> None:
    searcher = searcher_of(attempt, Listed("a"))
    data = pickle.dumps(searcher)
    assert len(data) < 200
    assert pickle.loads(data) is searcher  # our own, of this very process


def test_what_needs_more_room_waits_until_there_is_room(attempt: Attempt) -> None:
    source = Listed("small", "large", "small too")
    fitting = {"small": 2, "large": 1, "small too": 2}
    searcher = searcher_of(attempt, source, fitting=lambda segment: fitting[segment.key])
    assert searcher.suggest("1")["segment"]["key"] == "small"
    assert searcher.suggest("2") is None
    searcher.on_trial_complete("1", result={"error": ""})
    assert searcher.suggest("2")["segment"]["key"] == "large"
    assert searcher.suggest("3") is None
    attempt.request_stop()
    searcher.on_trial_complete("2", result={"error": "", "interrupted": True})
    assert searcher.suggest("3") == Searcher.FINISHED
    # What waited for room was never begun, and is handed out again by the next attempt.
    assert [segment.key for segment in source.left] == ["large", "small too"]


@pytest.mark.parametrize(
    ("workers", "resources", "needs", "gpus"),
    [
        (1, {"cpus": 2}, {"cpu": 2.0}, 0.0),
        (
            1,
            {"cpus": 1, "gpus": 0.5, "accelerator": "A100"},
            {"cpu": 1.0, "gpu": 0.5, "accelerator_type:A100": 0.001},
            0.5,
        ),
        (3, {"cpus": 2, "gpus": 1}, HOLDER, 3.0),
        ([1, 4], {"cpus": 1}, HOLDER, 0.0),
    ],
)
def test_a_trial_with_workers_of_its_own_holds_no_cpu(
    workers: Any, resources: dict[str, Any], needs: dict[str, float], gpus: float
) -> None:
    job = parse(SearchJob, tiny_search(resources=resources))
    asked = needs_of(job, train_job(workers=workers))
    assert reserved_by(asked) == needs
    assert on_workers(asked) == {"on_ray": True, "gpus": gpus}
