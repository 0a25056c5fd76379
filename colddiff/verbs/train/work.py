"""The work of a training job: one rank's part, and the driver's part."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from colddiff.checkpoints.format import Checkpoints, Snapshot
from colddiff.checkpoints.references import load_snapshot
from colddiff.data.open import open_second_set, open_shards
from colddiff.errors import CheckpointError, ColddiffError, DivergedError, Stopped
from colddiff.jobs.attempt import Attempt
from colddiff.jobs.device import device_of
from colddiff.jobs.folder import JobFolder
from colddiff.jobs.resolve import ResolvedJob
from colddiff.jobs.status import AGAIN
from colddiff.jobs.tracking_run import sampled
from colddiff.machine.load import busy_machine
from colddiff.ports import Tracker, WorkerContext
from colddiff.retry import call_with_retry
from colddiff.terminals.stored import stored_terminal
from colddiff.verbs.train.checkpoint_evaluation import evaluate_step, report_evaluation
from colddiff.verbs.train.evaluation_watcher import EvaluationWatcher
from colddiff.verbs.train.job import TrainJob
from colddiff.verbs.train.local_context import LocalContext
from colddiff.verbs.train.trainer import Trainer
from colddiff.verbs.train.watchdog import Watchdog

log = logging.getLogger(__name__)


def train_rank(
    resolved: ResolvedJob,
    ctx: WorkerContext,
    attempt: int,
    tracker: Tracker,
    *,
    watched: bool = False,
) -> None:
    """Runs one rank of a training job, from its newest checkpoint to its end.

    Rank 0 writes how it ended as the attempt's outcome. Divergence is an outcome, not an exception:
    every rank sees it at the same step, and a launcher that restarts failures must not retry it.
    ``tracker`` of other ranks does nothing. ``watched``: a rank without a step for
    ``job.hang_timeout_s`` seconds logs its stacks and exits.
    """
    outcome = _trained(resolved, ctx, attempt, tracker, watched)
    if ctx.rank != 0:
        return

    def end() -> None:
        # First: after the outcome nothing is trained, and so nothing logged, again.
        tracker.flush()
        resolved.folder.write_outcome(attempt, outcome)

    patience_s = resolved.job_as(TrainJob).store_patience_s
    call_with_retry(end, "the training outcome", patience_s)


def _trained(
    resolved: ResolvedJob, ctx: WorkerContext, attempt: int, tracker: Tracker, watched: bool
) -> dict[str, Any]:
    """Trains; returns the outcome."""
    folder = resolved.folder
    job = resolved.job_as(TrainJob)
    assert job.data is not None
    began = time.time()
    trainer = Trainer(
        job,
        open_shards(job.data),
        folder,
        ctx,
        tracker,
        attempt=attempt,
        start=_initial_weights(job, folder),
        terminal=stored_terminal(folder),
        images=open_second_set(job.degradation.build(job.shape), job.augment),
        watchdog=_watchdog(job, folder, ctx, attempt) if watched else None,
    )
    try:
        with sampled(resolved, ctx, tracker):
            ended = trainer.run()
    except DivergedError as error:
        return {"failed": _with_advice(error, resolved, trainer)}
    return {
        "step": ended.step,
        "stopped": ended.stopped,
        "left": ended.left,
        "training_s": time.time() - began,
    }


def _initial_weights(job: TrainJob, folder: JobFolder) -> Snapshot | None:
    """The weights that ``start_from`` names; optional once the job has its own checkpoints."""
    if job.start_from is None:
        return None
    try:
        return load_snapshot(job.start_from)
    except CheckpointError:
        if not Checkpoints.of(folder).steps():
            raise
        return None


def _watchdog(
    job: TrainJob, folder: JobFolder, ctx: WorkerContext, attempt: int
) -> Watchdog | None:
    if job.hang_timeout_s is None:
        return None

    def report(text: str) -> None:
        # To this process's log first: the store may be what hangs.
        log.error("rank %d: %s", ctx.rank, text)
        folder.write_stacks(attempt, ctx.rank, text)

    return Watchdog(job.hang_timeout_s, report)


def _with_advice(error: DivergedError, resolved: ResolvedJob, trainer: Trainer) -> str:
    """The error, and how to continue from the last finite checkpoint."""
    steps = trainer.checkpoints.steps()
    if not steps:
        return f"{error}; there is no earlier checkpoint; lower optimizer.lr or set clip_norm"
    last = f"{resolved.id}@step={steps[-1]}"
    return (
        f"{error}; the last finite checkpoint is that of step {steps[-1]}; continue from its "
        f"weights, as a new job, with `colddiff submit train JOB --from {last} "
        f"optimizer.lr={resolved.job_as(TrainJob).optimizer.lr / 2:g}`, or with optimizer.clip_norm"
    )


Fit = Callable[[Attempt], None]
"""Runs the workers of an attempt until they end; rank 0 writes how it ended as the outcome."""


def train(
    attempt: Attempt, fit: Fit, cores: Callable[[TrainJob], int] | None = None
) -> dict[str, Any]:
    """Trains and evaluates the last checkpoint; returns the result.

    ``cores`` are those that the workers leave to the evaluation; without it, torch's threads are.
    Raises ColddiffError if the training failed, Stopped if it was stopped.
    """
    resolved, folder = attempt.resolved, attempt.folder
    fit(attempt)
    job, outcome = resolved.job_as(TrainJob), folder.outcome(attempt.number)
    if outcome is None or "failed" in outcome:
        raise ColddiffError(str((outcome or {}).get("failed", "the workers wrote no outcome")))
    if outcome["stopped"]:
        raise Stopped(
            f"stopped after step {outcome['step']} of {job.num_steps}, with a checkpoint; {AGAIN}"
        )
    attempt.phase("evaluating")
    step = outcome["step"]
    result: dict[str, Any] = {
        "step": step,
        "checkpoint": f"{folder.uri}/checkpoints/step_{step:08d}",
        "time": {"training_s": outcome["training_s"]},
        "metrics": {},
        "omega": list(job.degradation.build(job.shape).omega_names),
    }
    if job.test_data is not None:
        began = time.monotonic()
        shown = _EvaluationProgress(attempt)
        left = cores(job) if cores is not None else None
        result |= evaluate_step(resolved, folder, attempt.tracker, step, shown, left)
        result["time"]["evaluation_s"] = time.monotonic() - began
        best = folder.best(set(folder.evaluated_steps()))
        result["best_step"] = best.step if best else None
        result["best"] = asdict(best) if best else None
    return result


class _EvaluationProgress:
    """Shows in the status how far the evaluation of the last checkpoint is, and when it ends."""

    def __init__(self, attempt: Attempt) -> None:
        self._attempt, self._began = attempt, time.monotonic()

    def __call__(self, images: int, of: int) -> None:
        per_image_s = (time.monotonic() - self._began) / images
        self._attempt.phase("evaluating", f"{images}/{of} images", (of - images) * per_image_s)


def fit_here(attempt: Attempt) -> None:
    """Trains with one worker in this process; checkpoints are evaluated in a thread."""
    resolved, folder = attempt.resolved, attempt.folder
    job = resolved.job_as(TrainJob)

    def evaluate(step: int) -> None:
        report_evaluation(attempt, step, evaluate_step(resolved, folder, attempt.tracker, step))

    context = LocalContext(device_of(job.resources))
    if context.device.type == "cpu" and (busy := busy_machine()):
        log.warning("%s", busy)
    with EvaluationWatcher(folder, job.evaluation_interval, job.num_steps, evaluate):
        # Without a watchdog: a breakpoint is not a hang.
        train_rank(resolved, context, attempt.number, attempt.tracker)
