"""Evaluation of a training job's checkpoints, and the dry run of it before the first step."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from colddiff.checkpoints.references import load_checkpoint
from colddiff.data.open import open_second_set, open_transformed, read_manifest
from colddiff.evaluation.evaluator import Evaluation, Evaluator, evaluate_all
from colddiff.evaluation.spec import EvaluationSpec
from colddiff.features.open import open_features
from colddiff.jobs.attempt import Attempt
from colddiff.jobs.device import device_of
from colddiff.jobs.folder import JobFolder
from colddiff.jobs.resolve import ResolvedJob
from colddiff.jobs.results import score_of
from colddiff.ports import Tracker
from colddiff.report.pictures import evaluation_pictures
from colddiff.report.tables import evaluation_line
from colddiff.restorers import Restorer, for_inference
from colddiff.verbs.train.job import TrainJob

DRY_IMAGES = 8


def evaluate_step(
    resolved: ResolvedJob, folder: JobFolder, tracker: Tracker, step: int
) -> dict[str, Any]:
    """Evaluates a committed checkpoint; writes its metrics to the folder and the tracker.

    Returns ``metrics``, ``provenance`` and the addresses of the ``pictures``, of which there are
    none without ``tracking.images``.
    """
    checkpoint = load_checkpoint(f"{folder.uri}@step={step}")
    job = resolved.job_as(TrainJob)
    R = for_inference(checkpoint.restorer.to(device_of(job.resources)))
    found = _evaluation(job, R, job.evaluation)
    record = {"metrics": dict(found.metrics), "provenance": dict(found.provenance)}
    tracker.log_metrics(found.metrics, step)
    pictures = []
    drawn = evaluation_pictures(found, checkpoint.losses) if job.tracking.images else {}
    for name, data in drawn.items():
        key = folder.key(f"pictures/step_{step:08d}/{name}")
        folder.store.put(key, data)
        pictures.append(f"{folder.store.uri}/{key}")
        tracker.log_artifact(f"pictures/step_{step:08d}/{name}", data)
    folder.write_evaluation(step, record)
    return {**record, "pictures": pictures}


def report_evaluation(attempt: Attempt, step: int, record: Mapping[str, Any]) -> None:
    """Tells who follows or lists the job the main numbers of an evaluation."""
    attempt.report(f"evaluation at step {step}: {evaluation_line(record['metrics'])}")
    score = score_of(record["metrics"])
    before = attempt.status
    if score and (score[0] != before.score_metric or score[1] < (before.score or math.inf)):
        attempt.scored(score)


def dry_evaluation(job: TrainJob) -> None:
    """Evaluates an untrained restorer on eight images, at one severity.

    Raises what the real evaluation would: SpecError for too many images or invalid severities,
    CheckpointError for feature weights that are missing or different, DataError.
    """
    restorer = job.restorer.build(job.shape).eval()
    _evaluator(job, restorer, job.evaluation)
    few = min(DRY_IMAGES, read_manifest(str(job.test_data)).count)
    dry = {"num_images": few, "severities": 1, "batch_size": few}
    found = _evaluation(job, restorer, job.evaluation.model_copy(update=dry))
    if job.tracking.images:
        evaluation_pictures(found, ())


def _evaluation(job: TrainJob, restorer: Restorer, spec: EvaluationSpec) -> Evaluation:
    return evaluate_all(_evaluator(job, restorer, spec))


def _evaluator(job: TrainJob, restorer: Restorer, spec: EvaluationSpec) -> Evaluator:
    assert job.test_data is not None
    device = device_of(job.resources)
    D = job.degradation.build(job.shape)
    return Evaluator(
        restorer.to(device),
        D.to(device),
        open_transformed(job.test_data, job.augment, job.shape, "test data"),
        spec,
        open_features(spec.features, device),
        device=device,
        images=open_second_set(D, job.augment),
    )
