"""Resolve an evaluation job: pin its checkpoint or samples, and its reference, by digest."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from colddiff.checkpoints.references import describe_checkpoint, find_checkpoint
from colddiff.data.open import open_samples, open_shards, open_transformed, read_manifest
from colddiff.data.resolve import packed
from colddiff.data.sample_plan import KEY as PLAN
from colddiff.errors import DataError, Missing, SpecError
from colddiff.evaluation.best import MANY, is_unasked, misfit, misfit_warning
from colddiff.evaluation.bounds import (
    SAMPLED_IMAGES,
    TEST_IMAGES,
    refuse_beyond,
    refuse_more_images,
)
from colddiff.features.open import located_features, missing_weights
from colddiff.features.spec import InceptionFeaturesSpec
from colddiff.jobs.folder import JobFolder
from colddiff.jobs.results import warn_submitter
from colddiff.ports import ShardSource
from colddiff.samplers import check_samplers
from colddiff.spec import digest
from colddiff.stores.open import absolute, open_store
from colddiff.verbs.evaluate.job import EvaluateJob

if TYPE_CHECKING:
    from colddiff.verbs.train.job import TrainJob

REQUIRED = "is required, or samples: the OUT of a generate job, or packed images"
REFERENCE_REQUIRED = "is required: the URI of packed images to compare with"


def resolve_evaluation(
    job: EvaluateJob, storage: str, *, pack: bool
) -> tuple[EvaluateJob, dict[str, str]]:
    """The job with its checkpoint (step and hash) or samples, and its test images, pinned.

    Raises SpecError, DataError, CheckpointError, before anything is started.
    """
    features = located_features(job.features)
    # Networks that are not shipped are identified by the hash of their weights, not their path.
    content = {"features": digest({**features.to_dict(), "path": None})}
    changes: dict[str, Any] = {"features": features}
    if job.samples is not None:
        _with_samples(job, pack, changes, content)
    elif job.checkpoint is not None:
        _with_checkpoint(job, storage, pack, changes, content)
    else:
        raise SpecError([("checkpoint", REQUIRED)])
    return job.model_copy(update=changes), content


def misfit_lines(job: EvaluateJob, shape: Sequence[int], n: int) -> list[str]:
    """A line where the Frechet distance says little about these images, and is shown all the same.

    ``n`` images of ``shape``.
    """
    if (unfit := unfit_default(job, shape)) is not None:
        return [f"features: {unfit}"]
    distance, of_sets = job.features.metric, job.samples is not None
    if is_unasked(distance, misfit(distance, shape, n), None, alone=of_sets):
        return []
    warning = misfit_warning(distance, shape, n, None, of_sets=of_sets)
    return [] if warning is None else [f"features: {warning}"]


def unfit_default(job: EvaluateJob, shape: Sequence[int]) -> str | None:
    """Why the default features measure nothing of samples [C, H, W]; None where they do.

    Nor where they were asked for. Samples have no other measure, as restorations have.
    """
    if job.samples is None or "features" in job.model_fields_set:
        return None
    # Of few digits the distance is biased, but it is one of digits.
    why = misfit(job.features.metric, shape, MANY)
    if why is None:
        return None
    weights = missing_weights(InceptionFeaturesSpec(), contact=False)
    needed = "" if weights is None else f" ({str(weights).removeprefix('evaluation.features: ')})"
    return (
        f"{why}, and samples have no other measure: use features=inception{needed}, or others "
        "(`colddiff features`)"
    )


def _warn_of_misfit(job: EvaluateJob, shape: Sequence[int], n: int, pack: bool) -> None:
    """Where it is resolved to be run (``pack``), and not to see whether it has been."""
    for line in misfit_lines(job, shape, n) if pack else ():
        warn_submitter(line)


def evaluated_images(job: EvaluateJob, trained: TrainJob) -> str:
    """The test images of an evaluation, as named by it or by the job of its checkpoint.

    Raises SpecError where there are none, or where the job does not suit the checkpoint.
    """
    D = trained.degradation.build(trained.shape)
    check_samplers(job.samplers, D, "samplers")
    refuse_beyond(job, D)
    test = job.test_data or trained.test_data
    if test is None:
        raise SpecError(
            [("test_data", "is required: the checkpoint's job names none; a URI or a SOURCE")]
        )
    return test


def open_set(where: str, *, partial: bool) -> ShardSource:
    """Images to evaluate: the samples of a generate job at ``where``, or a packed data set.

    Raises DataError if there are none, or if the samples are incomplete and ``partial`` is false.
    """
    store = open_store(where)
    if store.size(PLAN) is None:
        return open_shards(store)
    try:
        return open_samples(store, partial=partial)
    except DataError as error:
        wanted = _requested(store.uri)
        raise DataError(f"{error} ({wanted} were requested)" if wanted else str(error)) from None


def _requested(uri: str) -> int | None:
    """``num_samples`` of the job whose default location is ``uri``; None for other locations."""
    root, _, job_id = uri.rpartition("/samples/")
    if not root or "/" in job_id:
        return None
    try:
        wanted = JobFolder(open_store(root), job_id).job()["spec"]["num_samples"]
    except (Missing, KeyError):
        return None
    return int(wanted)


def _with_checkpoint(
    job: EvaluateJob,
    storage: str,
    pack: bool,
    changes: dict[str, Any],
    content: dict[str, str],
) -> None:
    assert job.checkpoint is not None
    address = find_checkpoint(job.checkpoint, storage)
    trained = describe_checkpoint(address).job
    uri = packed(evaluated_images(job, trained), "test", False, trained, storage, pack=pack)
    open_transformed(uri, trained.augment, trained.shape, "test_data")
    changes |= {"checkpoint": address.uri, "test_data": uri}
    manifest = read_manifest(uri)
    refuse_more_images(job.num_images, manifest.count, "num_images", TEST_IMAGES)
    _warn_of_misfit(job, trained.shape.chw, job.num_images or manifest.count, pack)
    content |= {"checkpoint": address.weights_sha256, "test_data": manifest.digest}


def _with_samples(
    job: EvaluateJob, pack: bool, changes: dict[str, Any], content: dict[str, str]
) -> None:
    reference = job.reference or job.test_data
    if reference is None:
        raise SpecError([("reference", REFERENCE_REQUIRED)])
    assert job.samples is not None
    samples, reference = absolute(job.samples), absolute(reference)
    made = open_set(samples, partial=job.partial).manifest
    refuse_more_images(job.num_images, made.count, "num_images", SAMPLED_IMAGES)
    changes |= {"samples": samples, "reference": reference, "test_data": None}
    shape = (made.image.channels, made.image.height, made.image.width)
    n = min(job.num_images or made.count, read_manifest(reference).count)
    _warn_of_misfit(job, shape, n, pack)
    content |= {
        "samples": made.digest,
        "reference": read_manifest(reference).digest,
    }
