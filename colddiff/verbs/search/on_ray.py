"""Segments as trials of Ray Tune: it places them, reuses its actors and counts their failures.

Everything that decides is ours, and so is everything that is kept: Tune's own files hold pickles,
so they go to a temporary folder that is never read again.
"""

from __future__ import annotations

import contextlib
import logging
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import ray
from ray import tune
from ray.tune.search import Searcher

from colddiff.errors import ColddiffError, SpecError, Stopped
from colddiff.jobs.attempt import Attempt
from colddiff.jobs.job import ResourcesSpec
from colddiff.jobs.logs import log_to_stderr
from colddiff.jobs.resolve import ResolvedJob
from colddiff.verbs.search.job import SearchJob
from colddiff.verbs.search.segment import Segment, SegmentSource, TrainSegment
from colddiff.verbs.search.severities.segment import ListSegment

log = logging.getLogger(__name__)

ENDED = "ended"
"""The one metric that Tune hears of: 1 when a segment has ended, however."""
QUIET = {
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
}


def run_segments_on_ray(
    attempt: Attempt, source: SegmentSource, on_change: Callable[[], None]
) -> None:
    """Runs segments as Tune trials until the source is exhausted or a stop was requested."""
    job = attempt.resolved.job_as(SearchJob)
    if source.exhausted or attempt.stop_requested():
        return  # Tune's own start takes seconds
    searcher = _SegmentSearcher(attempt, source, on_change, job.max_concurrent)
    trainable = tune.with_resources(_segment, _resources(job))
    with tempfile.TemporaryDirectory(prefix="colddiff-tune-") as folder, _quiet():
        tuner = tune.Tuner(
            trainable,
            tune_config=tune.TuneConfig(
                search_alg=searcher,
                num_samples=-1,
                reuse_actors=True,
                metric=ENDED,
                mode="max",
                max_concurrent_trials=None,
            ),
            run_config=tune.RunConfig(
                name="search",
                storage_path=folder,
                verbose=0,
                stop=lambda trial_id, result: False,
                failure_config=tune.FailureConfig(max_failures=job.max_failures),
            ),
        )
        tuner.fit()
    del _LIVE[id(searcher)]
    if searcher.error is not None:
        raise searcher.error


def _segment(config: dict[str, Any]) -> None:
    """What a Tune trial does: one segment, whose end is all that Tune hears of."""
    log_to_stderr()
    search = ResolvedJob.from_dict(config["search"])
    folder, number = search.folder, config["attempt"]
    interrupted = False
    try:
        segment = _segment_of(config["segment"])
        error = segment.run(search, lambda: folder.stop_requested(number))
    except Stopped as stopped:
        error, interrupted = str(stopped), folder.stop_requested(number)
    tune.report({ENDED: 1, "error": error, "interrupted": interrupted})


def _segment_of(data: dict[str, Any]) -> Segment:
    """What ``to_dict`` of a segment made JSON of."""
    kinds: dict[str, Any] = {kind.kind: kind for kind in (TrainSegment, ListSegment)}
    return cast("Segment", kinds[data["kind"]](**{k: v for k, v in data.items() if k != "kind"}))


_LIVE: dict[int, Any] = {}


def _live(number: int) -> Any:
    return _LIVE[number]


class _SegmentSearcher(Searcher):
    """Tune's questions answered by a ``SegmentSource``; Tune asks from one thread."""

    def __init__(
        self,
        attempt: Attempt,
        source: SegmentSource,
        on_change: Callable[[], None],
        max_concurrent: int,
    ) -> None:
        super().__init__(metric=ENDED, mode="max")
        self._attempt, self._source, self._on_change = attempt, source, on_change
        self._max = max_concurrent
        self._search = attempt.resolved.to_dict()
        self._running: dict[str, Segment] = {}
        _LIVE[id(self)] = self
        self.error: ColddiffError | None = None

    def __reduce__(self) -> Any:
        # Tune pickles its settings into its own folder. There is nothing of ours to be found there:
        # in this process the "copy" is this very object, elsewhere there is none.
        return _live, (id(self),)

    def suggest(self, trial_id: str) -> Any:
        if self.error is not None or self._attempt.stop_requested():
            return None if self._running else Searcher.FINISHED
        if len(self._running) >= self._max:
            return None
        try:
            segment = self._source.next()
        except ColddiffError as error:
            # An exception here would end the driver with three nested tracebacks.
            self.error = error
            return None if self._running else Searcher.FINISHED
        if segment is None:
            return None if self._running else Searcher.FINISHED
        self._running[trial_id] = segment
        self._on_change()
        return {
            "search": self._search,
            "attempt": self._attempt.number,
            "segment": segment.to_dict(),
        }

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        segment = self._running.pop(trial_id, None)
        if segment is None:
            return
        found = result or {}
        reason = "its worker died too often" if error else str(found.get("error") or "")
        try:
            if found.get("interrupted"):
                self._source.interrupted(segment)
            else:
                self._source.finished(segment, reason)
        except ColddiffError as failure:
            self.error = failure
        self._on_change()

    def set_search_properties(
        self, metric: str | None, mode: str | None, config: dict[str, Any], **spec: Any
    ) -> bool:
        return True

    def save(self, checkpoint_path: str) -> None:
        """Nothing: the journal is what a search continues from."""

    def restore(self, checkpoint_path: str) -> None:
        """Never called: Tune's files are not read again."""


def _resources(job: SearchJob) -> dict[str, float]:
    """What one segment holds; SpecError where the cluster has less in all."""
    asked = job.resources or ResourcesSpec()
    wanted = {
        "resources.cpus": ("CPU", float(asked.cpus)),
        "resources.gpus": ("GPU", float(asked.gpus)),
    }
    if asked.accelerator is not None:
        # As Ray itself asks for a type: every node that has it, has 1 of it.
        wanted["resources.accelerator"] = (f"accelerator_type:{asked.accelerator}", 0.001)
    total: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
    for field, (name, count) in wanted.items():
        if count > total.get(name, 0.0):
            what = f"a trial needs {name} {count:g}, the cluster has {total.get(name, 0.0):g}"
            raise SpecError([(field, what)])
    return {name.lower() if name in ("CPU", "GPU") else name: n for name, n in wanted.values() if n}


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Within ``with``, Tune prints no tables and no paths; what colddiff logs goes on."""
    before = {name: os.environ.get(name) for name in QUIET}
    os.environ.update(QUIET)
    tune_log = logging.getLogger("ray.tune")
    level = tune_log.level
    tune_log.setLevel(logging.CRITICAL)
    try:
        with Path(os.devnull).open("w") as nowhere, contextlib.redirect_stdout(nowhere):
            yield
    finally:
        tune_log.setLevel(level)
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
