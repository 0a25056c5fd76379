"""What an attempt at a search does: trials, the confirmation, and what comes of them."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from contextlib import suppress
from types import MappingProxyType
from typing import Any

import yaml

from colddiff.errors import Stopped, Unreachable
from colddiff.jobs.attempt import Attempt
from colddiff.jobs.plugins import FOLDER
from colddiff.jobs.segments.here import RunSegments
from colddiff.jobs.segments.listed import ENDED
from colddiff.jobs.segments.spending import GpuHours
from colddiff.jobs.status import AGAIN
from colddiff.spec.plugins import plugin_digest
from colddiff.tracking.open import deliver_late
from colddiff.verbs.search.confirm import Confirmation
from colddiff.verbs.search.estimate import expected_work
from colddiff.verbs.search.job import SearchJob
from colddiff.verbs.search.leaderboard import Leaderboard, leaderboard, ranked, to_json, to_markdown
from colddiff.verbs.search.pictures.fewer_calls import FewerCalls, InTurn
from colddiff.verbs.search.pictures.gallery import Findings, Gallery, guarded
from colddiff.verbs.search.planner import Planner
from colddiff.verbs.search.promotion import BASE
from colddiff.verbs.search.room import needs_of
from colddiff.verbs.search.search_task import SearchTask, open_task
from colddiff.verbs.search.settings import base_of, lower_is_better, ranked_by_misfit
from colddiff.verbs.search.splits import split_images
from colddiff.verbs.search.tracked import SearchRun
from colddiff.verbs.search.trials import Trial, TrialState

BEST_YAML = "best.yaml"
BEST_NOTE = (
    f"{BEST_YAML}, beside this page, is the best trial as a train job on all training images: "
    f"colddiff submit train {BEST_YAML}."
)
EMPTY: Mapping[str, str] = MappingProxyType({})

log = logging.getLogger(__name__)


def prepare(attempt: Attempt) -> SearchTask:
    """The task: the images split, and the base's end measured."""
    job = attempt.resolved.job_as(SearchJob)
    base = base_of(job)
    assert base.data is not None
    splits = split_images(base.data, job.validation, attempt.resolved.storage)
    return open_task(job, base, splits)


def search(attempt: Attempt, task: SearchTask, run_segments: RunSegments) -> dict[str, Any]:
    """Trains the trials, confirms the best and writes the results; returns the result.

    Raises Stopped where it was stopped before the end, ColddiffError where the base failed, or
    more than ``max_failures`` trials in a row.
    """
    began = time.monotonic()
    planner = Planner(attempt, task)
    spent = GpuHours(attempt.folder.store)
    if _uses_gpus(task):
        spent.include(planner.trainings)
        attempt.count_gpu_hours(spent)
    gallery = Gallery(task, attempt.resolved.storage, attempt.resolved.id)
    if planner.resumed:
        total = attempt.resolved.job_as(SearchJob).num_trials
        log.info("%d of %d trials resumed", planner.resumed, total)
    run = SearchRun(attempt.tracker, task)
    changed = _Progress(attempt, planner, run)
    try:
        run_segments(attempt, planner, changed)
    finally:
        # Also of a search that stops or fails here: its table says which trials failed, and why.
        _write(attempt, planner, gallery, Findings())
    _refuse_unfinished(attempt, planner.exhausted, planner)
    in_order = ranked(planner.states, lower_is_better=lower_is_better(task.metric))
    done = [state for state in in_order if state.done(task.rungs)]
    run(planner.states)
    found = _confirmed(attempt, task, done, run_segments, spent, changed)
    best_yaml = {BEST_YAML: _best_yaml(task, done[0].trial)}
    _write(attempt, planner, gallery, found, best_yaml)
    # A space with fewer points than trials is done as well.
    attempt.reached(task.job.num_trials)
    best = done[0]
    metrics = {"search/best": best.values[task.rungs[-1]], "search/trials": float(len(done))}
    jobs = [state.trial.job_id for state in planner.states] + list(found.job_ids)
    deliver_late(attempt.resolved.storage, attempt.resolved.tracking_uri, *jobs)
    return {
        "step": task.job.num_trials,
        "jobs": jobs,
        "trials": planner.describe()["asked"],
        "metric": task.metric,
        "end_rmse": task.target,
        "redrawn": sum(state.trial.redrawn for state in planner.states),
        "best": {"trial": best.trial.number, "job": best.trial.job_id, "point": best.trial.point},
        "base": planner.states[BASE].values.get(task.rungs[-1]),
        "confirmation": [*found.sentences(task.metric), *found.failures],
        "confirmed": [comparison.to_dict() for comparison in found.comparisons],
        "confirm_best": task.job.confirm_best,
        "confirm_seeds": task.job.confirm_seeds,
        "leaderboard": f"{attempt.folder.uri}/leaderboard.md",
        "page": f"{attempt.folder.uri}/leaderboard.html",
        "best_yaml": f"{attempt.folder.uri}/{BEST_YAML}",
        "metrics": metrics,
        "time": {"search_s": time.monotonic() - began},
    }


def _best_yaml(task: SearchTask, trial: Trial) -> str:
    """A job file that `submit train` takes; plugins are those kept beside it."""
    plugins = [f"{FOLDER}/{plugin_digest(plugin)}.py" for plugin in task.job.plugins]
    job = task.job_of(trial).to_dict() | {"plugins": plugins}
    return yaml.safe_dump({"train": job}, sort_keys=False)


def _uses_gpus(task: SearchTask) -> bool:
    return needs_of(task.job, task.base).resources.num_gpus > 0


def _refuse_unfinished(attempt: Attempt, exhausted: bool, planner: Planner) -> None:
    if exhausted:
        return
    about = planner.describe()
    attempt.reached(about["done"], stopped=True)
    raise Stopped(f"stopped with {about['done']} of {about['asked']} trials done; {AGAIN}")


def _confirmed(
    attempt: Attempt,
    task: SearchTask,
    done: list[TrialState],
    run_segments: RunSegments,
    spent: GpuHours,
    changed: _Progress,
) -> Findings:
    """The confirmation, and the finalists with fewer network calls where pictures are drawn."""
    job = task.job
    base = [state for state in done if state.trial.number == BASE]
    others = [state for state in done if state.trial.number != BASE]
    finalists = [*base, *others[:1]] if job.tracking.images else []
    fewer = FewerCalls(attempt, task, finalists)
    confirming = bool(job.confirm_seeds and others[: job.confirm_best])
    chosen = [state.trial for state in [*base, *others[: job.confirm_best]]] if confirming else []
    confirmation = Confirmation(attempt, task, chosen)
    spent.include(confirmation.trainings)
    source = InTurn(fewer, confirmation)
    if not source.exhausted:
        attempt.phase("confirming" if confirming else "evaluating")

        def on_change() -> None:
            stands = list(confirmation.trainings().values())
            if stands:
                changed.confirming(stands.count(ENDED), len(stands))

        run_segments(attempt, source, on_change)
    if not source.exhausted:
        raise Stopped(f"stopped during the confirmation; {AGAIN}")
    comparisons = confirmation.comparisons()
    for comparison in comparisons:
        attempt.report(comparison.sentence(task.metric))
    return Findings(
        tuple(comparisons),
        tuple(confirmation.failures()),
        fewer.values(),
        (*confirmation.trainings(), *fewer.job_ids()),
    )


class _Progress:
    """Writes and tracks how many trials are done, and how long the rest may take.

    By optimizer steps: most trials are passed over long before the last one, and the confirmation
    trains as long as the trials do.
    """

    def __init__(self, attempt: Attempt, planner: Planner, run: SearchRun) -> None:
        self._attempt, self._planner, self._run = attempt, planner, run
        self._began = time.monotonic()
        task = planner.task
        _, steps, confirmations = expected_work(task.job, task.rungs)
        self._whole = steps + confirmations * task.rungs[-1]
        self._confirmed = 0
        self._before = self._steps()

    def __call__(self) -> None:
        self._run(self._planner.states)
        about = self._planner.describe()
        total = self._planner.task.job.num_trials
        detail = f"{about['asked']}/{total} trials asked, {about['running']} running"
        if self._planner.resumed:
            detail += f", {self._planner.resumed} resumed"
        self._write("searching", detail)

    def confirming(self, ended: int, of: int) -> None:
        """The same once all trials are done: ``ended`` of as many trainings with fresh seeds."""
        self._whole = self._steps() + (of - self._confirmed) * self._planner.task.rungs[-1]
        self._confirmed = ended
        self._write("confirming", f"{ended}/{of} trainings with fresh seeds have ended")

    def _steps(self) -> int:
        """Optimizer steps of this search that are trained and evaluated."""
        trials = sum(max(state.values, default=0) for state in self._planner.states)
        return trials + self._confirmed * self._planner.task.rungs[-1]

    def _write(self, phase: str, detail: str) -> None:
        steps = self._steps()
        made, left = steps - self._before, max(0, self._whole - steps)
        passed = time.monotonic() - self._began
        with suppress(Unreachable):  # the next change is written again
            self._attempt.progress(
                step=self._planner.describe()["done"],
                num_steps=self._planner.task.job.num_trials,
                phase=phase,
                detail=detail,
                eta_s=passed / made * left if made else None,
            )


def _board(planner: Planner, confirmed: Mapping[int, str]) -> Leaderboard:
    task = planner.task
    return leaderboard(
        planner.states,
        task.rungs,
        task.metric,
        lower_is_better=lower_is_better(task.metric),
        finished=planner.exhausted,
        confirmed=confirmed,
    )


def _write(
    attempt: Attempt,
    planner: Planner,
    gallery: Gallery,
    found: Findings,
    more: Mapping[str, str] = EMPTY,
) -> None:
    """Leaderboard, pictures and ``more`` files, whole, into the job's folder and its run."""
    board = _board(planner, {each.trial: each.verdict for each in found.comparisons})
    misfits = ranked_by_misfit(planner.task.metric, planner.task.base)
    lines = [*found.sentences(planner.task.metric), *found.failures, *misfits]
    files = {
        "leaderboard.json": to_json(board),
        "leaderboard.md": to_markdown(board) + "".join(f"\n{line}\n" for line in lines),
        **more,
    }
    # Made of all else, and not worth the result of a search: what fails is logged and missing.
    notes = [*misfits, *([BEST_NOTE] if BEST_YAML in more else [])]
    shown = guarded("leaderboard.html", lambda: gallery.files(planner, board, found, notes))
    page, pictures = shown or ("", [])
    if page:
        files["leaderboard.html"] = page
    for name, text in files.items():
        attempt.folder.store.put(attempt.folder.key(name), text.encode())
        attempt.tracker.log_artifact(name, text.encode())
    attempt.pictures.clear()  # drawn once before the confirmation, and once after it
    for picture in pictures:
        attempt.keep_picture(picture.name, picture.png)
