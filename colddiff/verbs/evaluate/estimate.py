"""What an evaluation will take, and what is said of it, from what is on this machine."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from colddiff.checkpoints.named import NamedCheckpoint
from colddiff.checkpoints.sampling_cost import calls_line
from colddiff.data.resolve import Input
from colddiff.errors import SpecError
from colddiff.evaluation.best import DIGIT_SIDE, MANY
from colddiff.evaluation.bounds import SAMPLED_IMAGES, TEST_IMAGES, refuse_more_images
from colddiff.evaluation.calls import calls_by_sampler, calls_per_image
from colddiff.jobs.verb import DryRun
from colddiff.ports import Manifest
from colddiff.samplers import SAMPLERS
from colddiff.stores.open import storage_at
from colddiff.verbs.evaluate.job import EvaluateJob
from colddiff.verbs.evaluate.resolve import (
    REFERENCE_REQUIRED,
    REQUIRED,
    evaluated_images,
    misfit_lines,
)


def checkpoints_of(job: EvaluateJob) -> list[NamedCheckpoint]:
    """The checkpoint that is evaluated; none of samples."""
    if job.samples is not None:
        return []
    return [
        NamedCheckpoint(
            "checkpoint",
            job.checkpoint,
            REQUIRED,
            suits=lambda about: evaluated_images(job, about.job),
        )
    ]


def inputs_of(job: EvaluateJob) -> list[Input]:
    """The images of an evaluation: named, or those of its checkpoint's job."""
    if job.samples is not None:
        reference = job.reference or job.test_data
        named = [] if reference is None else [Input("reference", reference)]
        return [Input("samples", job.samples, partial=job.partial), *named]
    storage = storage_at(job.storage)
    trained = next(one.trained(storage) for one in checkpoints_of(job))
    test = job.test_data or (trained.test_data if trained is not None else None)
    return [] if test is None else [Input("test_data", test, trained)]


def dry_run(job: EvaluateJob) -> DryRun:
    """Images, calls of the network and their FLOPs; contacts nothing."""
    storage = storage_at(job.storage)
    inputs = inputs_of(job)
    if job.samples is not None:
        if len(inputs) == 1:
            return DryRun(problems=[("reference", REFERENCE_REQUIRED)])
        return _dry_run_of_samples(job, [one.manifest(storage) for one in inputs])
    about = next(one.suited(storage) for one in checkpoints_of(job))
    if about is None:
        return DryRun()
    trained, manifest = about.job, inputs[0].manifest(storage)
    found = None if manifest is None else manifest.count
    if found is not None and (problems := _beyond(job, found, TEST_IMAGES)):
        return DryRun(problems=problems)
    images = found if job.num_images is None else job.num_images
    T = trained.degradation.num_timesteps
    calls, total = calls_by_sampler(job, T), calls_per_image(job, T)
    line, flops = calls_line(trained, total, images)
    of = ", ".join(f"{SAMPLERS[name].label} {count:,}" for name, count in calls.items())
    if job.curve:
        of += f", curve {sum(job.curve):,}"
    lines = [line, f"of these: {of}"]
    if images is not None:
        batches = -(-images // job.batch_size)
        which = "" if found is None or images == found else f" of {found:,}"
        lines.insert(0, f"{images:,}{which} test images in batches of {job.batch_size}: {batches}")
    data: dict[str, Any] = {"images": images, "calls_per_image": total, "flops": flops}
    notes = misfit_lines(job, trained.shape.chw, images or MANY)
    return DryRun(notes, {"estimate": data}, lines)


def _beyond(job: EvaluateJob, count: int, images: str) -> list[tuple[str, str]]:
    """The problem of a job that asks for more than there are."""
    try:
        refuse_more_images(job.num_images, count, "num_images", images)
    except SpecError as error:
        return error.problems
    return []


def _where_default(job: EvaluateJob) -> list[str]:
    """What submission says of other images, where none can be looked at here, such as on S3."""
    if "features" in job.model_fields_set:
        return []
    digits = f"grey digits of {DIGIT_SIDE} x {DIGIT_SIDE} px"
    return [f"features: the default is for {digits}; others need features=inception, or their own"]


def _dry_run_of_samples(job: EvaluateJob, sets: Sequence[Manifest | None]) -> DryRun:
    """What the submission says of the distance between samples and reference, as far as either
    is here."""
    here = [one for one in sets if one is not None]
    if not here:
        return DryRun(_where_default(job))
    if sets[0] is not None and (problems := _beyond(job, sets[0].count, SAMPLED_IMAGES)):
        return DryRun(problems=problems)
    image = here[0].image
    shape = (image.channels, image.height, image.width)
    count = min(MANY if one is None else one.count for one in sets)
    return DryRun(misfit_lines(job, shape, min(job.num_images or MANY, count)))
