"""Training composed from adapters and engine: one rank, one evaluation, a whole job."""

from __future__ import annotations

import os
import time
from dataclasses import replace
from functools import partial
from typing import Any

import torch

from colddiff import connect
from colddiff.engine.attempt import Attempt
from colddiff.engine.evaluate import Evaluation, evaluate
from colddiff.engine.folder import JobFolder
from colddiff.engine.local_context import LocalContext
from colddiff.engine.stored_terminal import store_terminal, stored_terminal
from colddiff.engine.train import Trainer
from colddiff.engine.watch import EvaluationWatch
from colddiff.errors import ColddiffError, DataError, DivergedError, Stopped
from colddiff.jobspec import TrainJob
from colddiff.ports import Tracker, WorkerContext
from colddiff.references import LoadedCheckpoint, load_checkpoint, load_snapshot
from colddiff.report.pictures import evaluation_pictures
from colddiff.resolve import ResolvedJob
from colddiff.rng import stream
from colddiff.run.log import say
from colddiff.run.tracking import begin_tracking, ended_with_work, open_tracker, sampled
from colddiff.terminal import terminal_spec

DRY_IMAGES = 8


def prepare(resolved: ResolvedJob, folder: JobFolder) -> Tracker:
    """Before step 0: finds out in seconds what would otherwise fail after hours.

    Training and test data are what their manifests say, the feature weights can be read, and an
    untrained restorer goes through the whole evaluation on eight images. Returns the job's tracker.
    """
    job = resolved.train
    other = getattr(job.degradation, "other", None) if "other" in resolved.content else None
    for field, uri in (("data", job.data), ("test_data", job.test_data), ("other", other)):
        if uri is not None:
            found = connect.open_shards(uri).manifest.digest
            submitted = resolved.content.get(field, found)
            if found != submitted:
                raise DataError(
                    f"{field}: {uri} has changed since the job was submitted (digest "
                    f"{found[:12]}..., was {submitted[:12]}...); submit again to train on what is "
                    "there now"
                )
    _prepare_terminal(resolved, folder)
    if job.test_data is not None:
        _evaluate(job, job.restorer.build(job.shape).eval(), dry=True)
    return begin_tracking(resolved, folder)


def _prepare_terminal(resolved: ResolvedJob, folder: JobFolder) -> None:
    """Fits the distribution of x_T, unless an earlier attempt did."""
    job = resolved.train
    assert job.data is not None
    D = job.degradation.build(job.shape)
    spec = terminal_spec(D, job.terminal)
    if spec is None:
        say(f"no terminal: D(x0, T) of {job.degradation.kind} shows x0, images start from images")
        return
    fitted_on = {
        "data": resolved.content["data"],
        "degradation": job.degradation.to_dict(),
        "terminal": spec.to_dict(),
        "augment": job.augment,
    }
    if stored_terminal(folder, fitted_on) is None:
        began = time.monotonic()
        terminal = connect.make_terminal(
            D, connect.open_viewed(job.data, job.augment, job.shape), job.terminal
        )
        assert terminal is not None
        # A terminal that is not for this D, or a second set that cannot be read, is found out here.
        replace(terminal, images=connect.open_other(D, job.augment)).draw(
            D, [stream(job.seed, "terminal/dry")]
        )
        store_terminal(folder, terminal, fitted_on)
        say(f"terminal {spec.kind} ready after {time.monotonic() - began:.1f} s")


def train_rank(resolved: ResolvedJob, ctx: WorkerContext, attempt: int) -> None:
    """One rank of a training job, from its newest checkpoint to its end.

    How it ended goes into the attempt's outcome. A diverged run is an outcome, not an exception:
    every rank sees it at the same step, and a launcher that restarts failures must not retry it.
    """
    folder = JobFolder(connect.open_store(resolved.storage), resolved.id)
    job = resolved.train
    assert job.data is not None
    tracker = connect.null_tracker()
    if ctx.rank == 0:
        tracker = open_tracker(resolved, join=True)
    began = time.time()
    trainer = Trainer(
        job,
        connect.open_shards(job.data),
        folder,
        ctx,
        tracker,
        attempt=attempt,
        start=load_snapshot(job.start_from) if job.start_from else None,
        terminal=stored_terminal(folder),
        images=connect.open_other(job.degradation.build(job.shape), job.augment),
        talk=say,
    )
    try:
        with sampled(resolved, ctx, tracker):
            ended = trainer.run()
        outcome: dict[str, Any] = {
            "step": ended.step,
            "stopped": ended.stopped,
            "training_s": time.time() - began,
        }
    except DivergedError as error:
        outcome = {"failed": _way_on(error, resolved, trainer)}
    tracker.flush()
    if ctx.rank == 0:
        folder.write_outcome(attempt, outcome)


def _way_on(error: DivergedError, resolved: ResolvedJob, trainer: Trainer) -> str:
    steps = trainer.checkpoints.steps()
    if not steps:
        return f"{error}; no checkpoint was taken before; lower optimizer.lr or set clip_norm"
    last = f"{resolved.storage}/{trainer.checkpoints.key(steps[-1])}".rstrip("/")
    return (
        f"{error}; the last finite checkpoint is that of step {steps[-1]}; go on from it with "
        f"--from {last} and a lower optimizer.lr, or with optimizer.clip_norm"
    )


def end_training(
    resolved: ResolvedJob, folder: JobFolder, tracker: Tracker, attempt: int
) -> dict[str, Any]:
    """The content of ``result.json``, after evaluating the last checkpoint.

    Raises ColddiffError for a failed outcome, Stopped for a stopped one.
    """
    job, outcome = resolved.train, folder.outcome(attempt)
    if outcome is None or "failed" in outcome:
        raise ColddiffError(str((outcome or {}).get("failed", "the workers left no outcome")))
    if outcome["stopped"]:
        raise Stopped(
            f"stopped after step {outcome['step']} of {job.num_steps}, with a checkpoint; submit "
            "the same job again to go on"
        )
    step = outcome["step"]
    result: dict[str, Any] = {
        "id": resolved.id,
        "step": step,
        "checkpoint": f"{folder.uri}/checkpoints/step_{step:08d}",
        "time": {"training_s": outcome["training_s"]},
        "tracking": {"uri": resolved.tracking_uri, "run_id": tracker.run_id},
        "metrics": {},
        "pictures": [],
    }
    if job.test_data is not None:
        result |= evaluate_step(resolved, folder, tracker, step)
        result["best_step"] = folder.best_step(set(folder.evaluated_steps()))
    return result


def evaluate_step(
    resolved: ResolvedJob, folder: JobFolder, tracker: Tracker, step: int
) -> dict[str, Any]:
    """Evaluates a committed checkpoint; its numbers go to the folder and the tracker.

    Returns ``metrics``, ``provenance`` and the addresses of the ``pictures`` it drew.
    """
    checkpoint = load_checkpoint(f"{folder.uri}@step={step}")
    found = _evaluate(resolved.train, checkpoint)
    record = {"metrics": dict(found.metrics), "provenance": dict(found.provenance)}
    tracker.log_metrics(found.metrics, step)
    pictures = []
    for name, data in evaluation_pictures(found, checkpoint.losses).items():
        key = folder.key(f"pictures/step_{step:08d}/{name}")
        folder.store.put(key, data)
        pictures.append(f"{folder.store.uri}/{key}")
        if resolved.train.tracking.images:
            tracker.log_artifact(f"pictures/step_{step:08d}/{name}", data)
    folder.write_evaluation(step, record)
    return {**record, "pictures": pictures}


def _evaluate(job: TrainJob, subject: LoadedCheckpoint | Any, dry: bool = False) -> Evaluation:
    """``subject``: a checkpoint, or a restorer to go through the motions with."""
    assert job.test_data is not None
    device = _device(job)
    source = connect.open_viewed(job.test_data, job.augment, job.shape, "test data")
    restorer = subject.restorer if isinstance(subject, LoadedCheckpoint) else subject
    spec = job.evaluation
    if dry:
        few = min(DRY_IMAGES, source.manifest.count)
        spec = spec.model_copy(update={"num_images": few, "severities": 1, "batch_size": few})
    D = job.degradation.build(job.shape)
    return evaluate(
        restorer.to(device),
        D.to(device),
        source,
        spec,
        connect.open_features(spec.features, device),
        device=device,
        images=connect.open_other(D, job.augment),
    )


def _device(job: TrainJob) -> torch.device:
    return torch.device("cuda" if job.resources.gpus and torch.cuda.is_available() else "cpu")


def train_here(resolved: ResolvedJob, attempt: int) -> int:
    """Exit code of one attempt at a training job in this process, without Ray."""
    folder = JobFolder(connect.open_store(resolved.storage), resolved.id)
    job = resolved.train
    run = Attempt(
        folder, attempt, num_steps=job.num_steps, gpus=job.resources.gpus, limits=job.limits
    )

    def work() -> dict[str, Any]:
        run.phase("preparing")
        tracker = prepare(resolved, folder)
        run.phase("")
        with ended_with_work(tracker):
            with EvaluationWatch(
                folder,
                job.evaluated_every,
                job.num_steps,
                partial(evaluate_step, resolved, folder, tracker),
                say,
            ):
                train_rank(resolved, LocalContext(_device(job)), attempt)
            run.phase("evaluating")
            return end_training(resolved, folder, tracker, attempt)

    return run.run(work, {"host": os.uname().nodename, "pid": os.getpid(), "local": True})
