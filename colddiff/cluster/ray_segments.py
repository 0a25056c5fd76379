"""Segments of a job as trials of Ray Tune, which places them, reuses actors and counts failures.

Everything that decides is ours, and so is everything that is kept: Tune's own files hold pickles,
so they go to a temporary folder that is never read again.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ray import tune
from ray.tune.search import Searcher

from colddiff.cluster.capacity import NOTICE_S, connected_capacity, lost_machines, machines_up
from colddiff.cluster.nodes.places import denied_node_named
from colddiff.cluster.waiting import await_machines
from colddiff.cluster.worker_count import most_workers
from colddiff.errors import ColddiffError, Stopped, StoreDenied
from colddiff.jobs.attempt import Attempt
from colddiff.jobs.driver import no_context
from colddiff.jobs.in_process import InProcess
from colddiff.jobs.logs import log_to_stderr
from colddiff.jobs.resolve import ResolvedJob
from colddiff.jobs.runner import Capacity, requested
from colddiff.jobs.segments.room import Needs, fitting_at_once
from colddiff.jobs.segments.segment import OUTAGE_S, JobSegment, Segment, SegmentSource
from colddiff.retry import DENIALS, call_with_retry

log = logging.getLogger(__name__)

HOLDER = {"node:__internal_head__": 0.001}
"""What a segment with workers of its own reserves beside them: no CPU, or those that wait for their
workers could hold all that the workers need. Tune refuses a trial that reserves nothing."""
ENDED = "ended"
"""The one metric that Tune hears of: 1 when a segment has ended, however."""
LOSSES_EXCUSED = 3
"""How often a segment whose worker died too often is handed out again as a machine was lost."""
QUIET = {
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
}


@dataclass(frozen=True, slots=True)
class Placement:
    """How the segments of a job are placed on the cluster."""

    most: int
    """How many run at once, whatever they need."""
    reserved: Mapping[str, float]
    """What Tune reserves for each, by its names: ``cpu``, ``gpu``, ..."""
    runner: Callable[[Segment], Mapping[str, Any]]
    """How ``InProcess`` runs the job of a segment."""
    fitting: Callable[[Segment], int] = lambda segment: sys.maxsize
    """How many segments that need as much as this one there is room for at once."""
    kinds: tuple[type[Segment], ...] = (JobSegment,)
    up: Callable[[], list[str]] = machines_up
    lost: Callable[[list[str], float], list[str]] = lost_machines


def run_segments_on_ray(
    attempt: Attempt,
    source: SegmentSource,
    on_change: Callable[[], None],
    needs: Callable[[], Iterable[Needs]],
    place: Callable[[Capacity], Placement],
) -> None:
    """Runs segments as Tune trials until the source is exhausted or a stop was requested.

    ``place`` is asked once, with what the machines of the cluster hold, which is room for each of
    ``needs``.
    """
    if source.exhausted or attempt.stop_requested():
        return  # Tune's own start takes seconds
    await_machines(attempt, needs())
    placement = place(connected_capacity())
    searcher = _SegmentSearcher(attempt, source, on_change, placement)
    trainable = tune.with_resources(_trainable(placement.kinds), dict(placement.reserved))
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
                name="segments",
                storage_path=folder,
                verbose=0,
                stop=lambda trial_id, result: False,
                failure_config=tune.FailureConfig(max_failures=attempt.job.max_failures),
            ),
        )
        try:
            tuner.fit()
        finally:
            del _LIVE[id(searcher)]
    if searcher.error is not None:
        raise searcher.error


def room_for(max_concurrent: int, needs: Needs, capacity: Capacity) -> int:
    """``fitting_at_once``, with a line in the log where that is fewer than ``max_concurrent``."""
    at_once = fitting_at_once(max_concurrent, needs, capacity)
    if at_once < max_concurrent:
        what = "max_concurrent=%d: the cluster has room for %d at once, the others wait"
        log.info(what, max_concurrent, at_once)
    return at_once


def reserved_by(needs: Needs) -> Mapping[str, float]:
    """What a Tune trial reserves: what its work needs, or nothing beside workers of its own."""
    if needs.workers != 1:
        return HOLDER
    wanted = requested(needs.resources)
    return {name.lower() if name in ("CPU", "GPU") else name: n for name, n in wanted.items()}


def on_workers(needs: Needs) -> dict[str, Any]:
    """How ``InProcess`` runs a job with the workers that a submitted one has."""
    return {"on_ray": True, "gpus": needs.resources.num_gpus * most_workers(needs)}


def _trainable(kinds: tuple[type[Segment], ...]) -> Callable[[dict[str, Any]], None]:
    """What a Tune trial does: one segment, whose end is all that Tune hears of."""
    by_name = {kind.kind: kind for kind in kinds}

    def segment(config: dict[str, Any]) -> None:
        log_to_stderr()
        outer = ResolvedJob.from_dict(config["job"])
        folder, number = outer.folder, config["attempt"]
        interrupted, denied = False, _Denied()
        try:
            found = dict(config["segment"])
            work = by_name[found.pop("kind")](**found)
            # Workers elsewhere name their own node.
            within = no_context if config["runner"].get("on_ray") else denied.within
            runner = InProcess(**config["runner"], within=within)
            with denied.named(outer.storage):
                error = work.run(outer, lambda: folder.stop_requested(number), runner)
        except Stopped as stopped:
            error, interrupted = str(stopped), folder.stop_requested(number)
        except StoreDenied as refusal:
            error = str(refusal)
        tune.report({ENDED: 1, "error": error, "interrupted": interrupted, "denied": denied.seen})

    return segment


class _Denied:
    """Whether the store denied a segment access, whose error then names this node."""

    seen = False

    @contextlib.contextmanager
    def named(self, storage: str) -> Iterator[None]:
        try:
            with denied_node_named(storage):
                yield
        except StoreDenied:
            self.seen = True
            raise

    def within(self, attempt: Attempt) -> contextlib.AbstractContextManager[None]:
        """For the job of a segment, which ends as failed with that error."""
        return self.named(attempt.resolved.storage)


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
        placement: Placement,
    ) -> None:
        super().__init__(metric=ENDED, mode="max")
        self._attempt, self._source, self._on_change = attempt, source, on_change
        self._placement = placement
        self._config = {"job": attempt.resolved.to_dict(), "attempt": attempt.number}
        self._held: Segment | None = None
        """Handed out by the source; it waits for room."""
        self._running: dict[str, Segment] = {}
        self._machines: dict[str, list[str]] = {}
        """Those that were up when a trial was handed out."""
        self._lost: Counter[str] = Counter()
        self._denials: Counter[str] = Counter()
        _LIVE[id(self)] = self
        self.error: ColddiffError | None = None

    def __reduce__(self) -> Any:
        # Tune pickles its settings into its own folder. There is nothing of ours to be found there:
        # in this process the "copy" is this very object, elsewhere there is none.
        return _live, (id(self),)

    def suggest(self, trial_id: str) -> Any:
        if len(self._running) >= self._placement.most:
            return None
        try:
            self._held = call_with_retry(self._next, "the next segment", OUTAGE_S)
        except ColddiffError as error:
            # An exception here would end the driver with three nested tracebacks.
            self.error = error
        segment = self._held
        if segment is None:
            return None if self._running else Searcher.FINISHED
        fitting = map(self._placement.fitting, [*self._running.values(), segment])
        if len(self._running) >= min(fitting):
            return None
        self._held = None
        self._running[trial_id] = segment
        self._machines[trial_id] = self._placement.up()
        self._on_change()
        # The process of a trial is that of whoever started the cluster.
        runner = {**self._placement.runner(segment), "user": self._attempt.status.user}
        return {**self._config, "runner": runner, "segment": segment.to_dict()}

    def _next(self) -> Segment | None:
        if self.error is not None or self._attempt.stop_requested():
            if self._held is not None:
                self._source.interrupted(self._held)
            return None
        return self._held or self._source.next()

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        segment = self._running.pop(trial_id, None)
        if segment is None:
            return
        found = result or {}
        reason = "its worker died too often" if error else str(found.get("error") or "")
        machines = self._machines.pop(trial_id)
        lost = self._placement.lost(machines, NOTICE_S) if error else []
        if lost:
            self._lost[segment.key] += 1
            log.warning("%s: lost without notice: %s", segment.key, "; ".join(lost))
        excused = bool(lost) and self._lost[segment.key] <= LOSSES_EXCUSED
        if found.get("denied"):
            # Of many at once each may meet the one machine that has no credentials.
            self._denials[segment.key] += 1
            excused = True
            if self._denials[segment.key] >= DENIALS:
                self.error = self.error or StoreDenied(reason)
        try:
            if found.get("interrupted") or excused:
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
        """Nothing: what is stored is what a job continues from."""

    def restore(self, checkpoint_path: str) -> None:
        """Never called: Tune's files are not read again."""


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
