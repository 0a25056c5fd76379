"""What a segment of a search on Ray Tune costs beside training and evaluation."""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ray

from colddiff.jobs.attempt import Attempt
from colddiff.jobs.folder import JobFolder
from colddiff.jobs.resolve import record_job, resolve
from colddiff.jobs.segments.segment import Segment, SegmentSource
from colddiff.jobs.tracking_run import open_tracker
from colddiff.spec import parse
from colddiff.verbs.search.job import SearchJob
from colddiff.verbs.search.on_ray import run_trials_on_ray
from colddiff.verbs.search.trials import read_trials
from colddiff.verbs.search.work import prepare, search
from tests.unit.search.tiny_search import DRAWN, tiny_search


@dataclass
class Timed:
    """A ``SegmentSource`` that notes how long each segment took, as the driver sees it."""

    source: SegmentSource
    folder_of: Callable[[Segment], JobFolder]
    overheads: list[float] = field(default_factory=list)
    """Wall time less what the training job records of training and evaluation, s."""
    began: dict[str, float] = field(default_factory=dict)

    @property
    def exhausted(self) -> bool:
        return self.source.exhausted

    def next(self) -> Segment | None:
        now, segment = time.monotonic(), self.source.next()
        if segment is not None:
            self.began[segment.key] = now
        return segment

    def finished(self, segment: Segment, error: str) -> None:
        assert not error, error
        self.source.finished(segment, error)
        passed = time.monotonic() - self.began[segment.key]
        told = (self.folder_of(segment).result() or {})["time"]
        self.overheads.append(passed - told["training_s"] - told["evaluation_s"])

    def interrupted(self, segment: Segment) -> None:
        raise AssertionError(segment)


def measure(num_trials: int) -> dict[str, Any]:
    """A search of ``num_trials`` tiny trials, one at a time, that extend each other by promotion.

    The first segment starts the actor, and is counted apart.
    """
    with tempfile.TemporaryDirectory(prefix="cdb-", dir="/tmp") as place:
        os.environ |= {"RAY_AUTH_MODE": "disabled", "PYTHONPATH": str(Path.cwd())}
        ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
        try:
            overheads = _overheads(Path(place), num_trials)
        finally:
            ray.shutdown()
    return {
        "case": f"search, {len(overheads)} segments of {num_trials} trials",
        "first_segment_s": overheads[0],
        "overhead_s_per_segment": statistics.median(overheads[1:]),
        "largest_overhead_s": max(overheads[1:]),
    }


def _overheads(place: Path, num_trials: int) -> list[float]:
    job = parse(SearchJob, tiny_search(num_trials=num_trials, searcher="random", **DRAWN))
    resolved = resolve(job, "bench", storage=str(place))
    attempt = Attempt(resolved, 1)
    record_job(resolved, attempt.folder)
    attempt.tracker = open_tracker(resolved)
    found: list[float] = []

    def run(attempt: Attempt, source: SegmentSource, on_change: Callable[[], None]) -> None:
        timed = Timed(source, lambda segment: _training_of(attempt, segment))
        run_trials_on_ray(attempt, timed, on_change)
        found.extend(timed.overheads)

    search(attempt, prepare(attempt), run)
    attempt.tracker.finish("FINISHED")
    return found


def _training_of(attempt: Attempt, segment: Segment) -> JobFolder:
    number = int(segment.key.split()[1])
    return JobFolder(attempt.folder.store, read_trials(attempt.folder)[number].job_id)
