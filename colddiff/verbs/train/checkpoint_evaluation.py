"""Evaluation of a training job's checkpoints, and the dry run of it before the first step."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from colddiff.checkpoints.references import load_checkpoint
from colddiff.data.open import open_second_set, open_transformed, read_manifest
from colddiff.errors import CheckpointError
from colddiff.evaluation.best import is_distance, shown_metrics, unfit_metric
from colddiff.evaluation.evaluator import KEPT_IMAGES, Evaluator, evaluate_all
from colddiff.evaluation.generated import GeneratedSamples, evaluate_generated
from colddiff.evaluation.result import Evaluation
from colddiff.evaluation.spec import EvaluationSpec
from colddiff.features.open import open_features
from colddiff.image_maker import ImageMaker
from colddiff.jobs.attempt import Attempt
from colddiff.jobs.device import device_of
from colddiff.jobs.folder import JobFolder
from colddiff.jobs.resolve import ResolvedJob
from colddiff.ports import Tracker
from colddiff.report.contact_sheet import contact_sheet
from colddiff.report.page.details import details_to_bytes
from colddiff.report.pictures import SAMPLES, evaluation_pictures
from colddiff.report.tables import evaluation_line
from colddiff.restorers import Restorer, for_inference
from colddiff.terminal import Terminal
from colddiff.verbs.train.job import TrainJob

DRY_IMAGES = 8


def evaluate_step(
    resolved: ResolvedJob,
    folder: JobFolder,
    tracker: Tracker,
    step: int,
    on_batch: Callable[[int, int], None] | None = None,
    cores: int | None = None,
) -> dict[str, Any]:
    """Evaluates a committed checkpoint; writes its metrics to the folder and the tracker.

    ``on_batch(images, of)`` is called after each batch of test images; ``cores`` as of Evaluator.
    Returns ``metrics``, ``provenance`` and the addresses of the ``pictures``, of which there are
    none without ``tracking.images``.
    """
    checkpoint = load_checkpoint(f"{folder.uri}@step={step}")
    job = resolved.job_as(TrainJob)
    R = for_inference(checkpoint.restorer.to(device_of(job.resources)))
    found = evaluate_all(_evaluator(job, R, job.evaluation, cores), on_batch)
    record = {"metrics": dict(found.metrics), "provenance": dict(found.provenance)}
    samples = _generated(job, R, found, job.evaluation, checkpoint.terminal)
    if samples is not None:
        record["metrics"] |= samples.metrics
        record["provenance"]["generated"] = dict(samples.provenance)
    tracker.log_metrics(record["metrics"], step)
    pictures = []
    drawn: dict[str, bytes] = {}
    if job.tracking.images:
        folder.write_details(step, details_to_bytes(found, checkpoint.losses))
        drawn = evaluation_pictures(found, checkpoint.losses, job.evaluation.best)
        if samples is not None:
            drawn[SAMPLES] = contact_sheet(samples.images)
    for name, data in drawn.items():
        key = folder.key(f"pictures/step_{step:08d}/{name}")
        folder.store.put(key, data)
        pictures.append(f"{folder.store.uri}/{key}")
        tracker.log_artifact(f"pictures/step_{step:08d}/{name}", data)
        if name.endswith(".png"):
            tracker.log_image(name.removesuffix(".png"), data, step)
    folder.write_evaluation(step, record)
    return {**record, "pictures": pictures}


def report_evaluation(attempt: Attempt, step: int, record: Mapping[str, Any]) -> None:
    """Tells who follows or lists the job the main numbers of an evaluation."""
    best = attempt.folder.best(set(attempt.folder.evaluated_steps()))
    # Where another metric than the distance tells the best, the distance does not fit the images.
    distances = best is None or is_distance(best.metric)
    wanted = attempt.resolved.job_as(TrainJob).evaluation.best
    provenance = record.get("provenance") or {}
    metrics = shown_metrics(record["metrics"], provenance, wanted)
    line = evaluation_line(metrics, distances=distances, last=unfit_metric(provenance))
    attempt.report(f"evaluation at step {step}: {line}")
    if best is not None:
        attempt.scored((best.metric, best.value))


def dry_evaluation(job: TrainJob, terminal: Terminal | None) -> None:
    """Evaluates an untrained restorer on eight images, at one severity.

    ``terminal`` is the one that the job's checkpoints will hold.

    Raises what the real evaluation would: SpecError for too many images or invalid severities,
    CheckpointError for feature weights that are missing or different, DataError.
    """
    restorer = job.restorer.build(job.shape).eval()
    _evaluator(job, restorer, job.evaluation)
    few = min(DRY_IMAGES, read_manifest(str(job.test_data)).count)
    dry: dict[str, Any] = {"num_images": few, "severities": 1, "batch_size": few}
    if job.evaluation.generated is not None:
        fewer = {"num_images": few, "severities": 1}
        dry["generated"] = job.evaluation.generated.model_copy(update=fewer)
    spec = job.evaluation.model_copy(update=dry)
    found = evaluate_all(_evaluator(job, restorer, spec))
    _generated(job, restorer, found, spec, terminal)
    if job.tracking.images:
        evaluation_pictures(found, ())
        details_to_bytes(found)


def _generated(
    job: TrainJob,
    restorer: Restorer,
    found: Evaluation,
    spec: EvaluationSpec,
    terminal: Terminal | None,
) -> GeneratedSamples | None:
    """Samples from ``terminal``, against the test images of ``found``; None if none are wanted."""
    wanted = spec.generated
    if wanted is None:
        return None
    if terminal is None:
        raise CheckpointError("the checkpoint holds no terminal to draw samples from; train again")
    device = device_of(job.resources)
    D = job.degradation.build(job.shape)
    images = open_second_set(D, job.augment)
    maker = ImageMaker(
        restorer.to(device),
        D.to(device),
        wanted.sampler,
        wanted.severities,
        wanted.symmetry_noise,
        terminal=replace(terminal, images=images),
        images=images,
        precision=spec.precision,
        device=device,
    )
    extractor = open_features(spec.features, device)
    return evaluate_generated(maker, wanted, found.reference, extractor, batch_size=spec.batch_size)


def _evaluator(
    job: TrainJob, restorer: Restorer, spec: EvaluationSpec, cores: int | None = None
) -> Evaluator:
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
        keep=KEPT_IMAGES if job.tracking.images else 0,
        images=open_second_set(D, job.augment),
        cores=cores,
    )
