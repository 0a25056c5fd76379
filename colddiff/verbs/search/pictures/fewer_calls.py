"""The finalists with fewer network calls: their checkpoints evaluated with skipped severities.

Each point is an evaluation job on the validation images, kept in its own folder like the trials,
so that a search that is resumed or extended evaluates nothing twice.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from colddiff.errors import ColddiffError
from colddiff.evaluation.spec import carried_over
from colddiff.jobs.attempt import Attempt
from colddiff.jobs.folder import JobFolder
from colddiff.jobs.job import Job
from colddiff.jobs.resolve import identified
from colddiff.jobs.results import untold
from colddiff.jobs.segments.listed import ListedSegments
from colddiff.jobs.segments.segment import JobSegment, Segment, SegmentSource
from colddiff.jobs.verb import VERBS
from colddiff.spec import parse
from colddiff.verbs.search.leaderboard import network_calls
from colddiff.verbs.search.search_task import SearchTask
from colddiff.verbs.search.tracked import nested_run
from colddiff.verbs.search.trials import TrialState

log = logging.getLogger(__name__)

PARTS = (0.5, 0.25, 0.125)
"""Numbers of calls to try, as parts of a trial's own: together fewer than its own evaluation."""
SAMPLED, DIRECT = "eval/sampled/", "eval/direct/"
"""Metrics of the sampler that takes a step per severity, and of the one that takes a single one."""


def fewer_calls(calls: int) -> list[int]:
    """Falling numbers of calls below ``calls``.

    >>> fewer_calls(20), fewer_calls(6), fewer_calls(1)
    ([10, 5, 2], [3, 2, 1], [])
    """
    return sorted({max(1, round(calls * part)) for part in PARTS} - {calls}, reverse=True)


def evaluation_of(
    trial: Mapping[str, Any], checkpoint: str, test_data: str, calls: int, where: str
) -> Job:
    """The evaluation of a trial's ``checkpoint`` with ``calls``, otherwise as it was trained with.

    ``trial`` is a train job as plain data; SpecError names ``where``.
    """
    fields: dict[str, Any] = {
        **carried_over(trial["evaluation"]),
        "curve": None,  # each number of calls is a job of its own here
        "checkpoint": checkpoint,
        "test_data": test_data,
        "samplers": ["improved"],
        "severities": calls,
        "resources": trial.get("resources"),
        "tracking": trial.get("tracking"),
    }
    given = {name: value for name, value in fields.items() if value is not None}
    job: Job = parse(VERBS["evaluate"].spec(), given, where)
    return job


class FewerCalls(ListedSegments[tuple[int, int], JobSegment]):
    """``SegmentSource`` of the evaluations of ``finalists``, trials that are done.

    Without any where the metric is not of a sampler that takes steps.
    """

    says_failed = "was not evaluated"  # a picture lacks a point; the search has all it needs

    def __init__(self, attempt: Attempt, task: SearchTask, finalists: Sequence[TrialState]) -> None:
        self._attempt, self._task = attempt, task
        self._slug = f"{attempt.resolved.slug}-calls"
        self._jobs: dict[tuple[int, int], Job] = {}
        self._folders: dict[tuple[int, int], JobFolder] = {}
        if task.metric.startswith(SAMPLED):
            for state in finalists:
                self._add(state)
        super().__init__(key for key in self._jobs if self._value(key) is None)

    def _segment(self, item: tuple[int, int]) -> JobSegment:
        number, calls = item
        key = f"trial {number} with {calls} network calls"
        tracking = nested_run(self._attempt.resolved.id, number, calls=calls)
        job, step = self._jobs[item].to_dict(), self._task.rungs[-1]
        return JobSegment(key, self._slug, job, step, tracking, "evaluate")

    def job_ids(self) -> list[str]:
        """Ids of its evaluation jobs."""
        return [folder.job_id for folder in self._folders.values()]

    def values(self) -> dict[int, dict[int, float]]:
        """The metric by trial and number of calls, as far as it was evaluated."""
        found: dict[int, dict[int, float]] = {}
        for number, calls in self._jobs:
            value = self._value((number, calls))
            if value is not None:
                found.setdefault(number, {})[calls] = value
        return found

    def _add(self, state: TrialState) -> None:
        trial = state.trial
        calls = network_calls(trial.job)
        if calls is None or isinstance((trial.job.get("evaluation") or {}).get("severities"), list):
            return  # severities that were chosen one by one are not thinned out
        for count in fewer_calls(calls):
            try:
                job = self._job(state, count)
                storage = self._attempt.resolved.storage
                with untold():  # what is true of the search was said as it was submitted
                    _, _, job_id = identified(job, self._slug, storage)
            except ColddiffError as error:
                log.warning(
                    "trial %d with %d network calls was not evaluated: %s",
                    trial.number,
                    count,
                    error,
                )
                return
            self._jobs[trial.number, count] = job
            self._folders[trial.number, count] = JobFolder(self._attempt.folder.store, job_id)

    def _job(self, state: TrialState, calls: int) -> Job:
        storage, step = self._attempt.resolved.storage, self._task.rungs[-1]
        checkpoint = f"{storage}/jobs/{state.trial.job_id}@step={step}"
        where = f"trial {state.trial.number}"
        return evaluation_of(
            state.trial.job, checkpoint, self._task.splits.validation, calls, where
        )

    def _value(self, key: tuple[int, int]) -> float | None:
        result = self._folders[key].result() or {}
        value = result.get("metrics", {}).get(self._task.metric)
        return None if value is None else float(value)


class InTurn:
    """``SegmentSource`` of several sources, in their order; a segment goes back to its own."""

    def __init__(self, *sources: SegmentSource) -> None:
        self._sources = sources
        self._owners: dict[str, SegmentSource] = {}

    @property
    def exhausted(self) -> bool:
        return all(source.exhausted for source in self._sources)

    def next(self) -> Segment | None:
        for source in self._sources:
            segment = source.next()
            if segment is not None:
                self._owners[segment.key] = source
                return segment
        return None

    def finished(self, segment: Segment, error: str) -> None:
        self._owners.pop(segment.key).finished(segment, error)

    def interrupted(self, segment: Segment) -> None:
        self._owners.pop(segment.key).interrupted(segment)
