"""Resolve a checkpoint's search: pin the checkpoint and the images that lists are compared on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from colddiff.checkpoints.named import NamedCheckpoint
from colddiff.checkpoints.references import (
    CheckpointAddress,
    describe_checkpoint,
    find_checkpoint,
)
from colddiff.data.open import open_transformed, read_manifest
from colddiff.data.resolve import Input, packed
from colddiff.errors import CheckpointError, SpecError
from colddiff.features.open import located_features
from colddiff.jobs.listing.ids import slugify
from colddiff.jobs.recipes import Recipe, list_recipes, load_recipe
from colddiff.jobs.resolve import trained_id
from colddiff.jobs.results import warn_submitter
from colddiff.spec import digest
from colddiff.stores.open import storage_at
from colddiff.verbs.search.job import SearchJob
from colddiff.verbs.search.settings import ranking_lines
from colddiff.verbs.search.severities.settings import (
    CheckpointBase,
    base_evaluation,
    base_sampler,
    base_severities,
    check_list_settings,
    list_metric,
    list_space,
)
from colddiff.verbs.search.splits import validation_part

if TYPE_CHECKING:
    from colddiff.verbs.train.job import TrainJob


def resolve_lists(job: SearchJob, storage: str, *, pack: bool) -> tuple[SearchJob, dict[str, str]]:
    """The search with its checkpoint and images pinned, and the digests that stand for them.

    Raises SpecError, DataError, CheckpointError: before anything is started.
    """
    base = check_list_settings(job)
    address = located_checkpoint(base.checkpoint, storage)
    trained = describe_checkpoint(address).job
    metric = list_metric(job, trained)
    list_space(job, base, trained)
    located_features(trained.evaluation.features)
    base = _with_images(job, base, trained, storage, pack=pack)
    assert base.data is not None
    manifest = read_manifest(base.data).digest
    if pack:
        part = validation_part(base.data, job.validation, storage)
        open_transformed(part, trained.augment, trained.shape, "base.data")
        for line in ranking_lines(job.metric, metric, trained):
            warn_submitter(line)
    base = base.model_copy(
        update={
            "checkpoint": address.uri,
            "sampler": base_sampler(base, trained),
            "severities": base_severities(base, trained),
        }
    )
    evaluation = base_evaluation(base, trained, 1).to_dict() | {
        "num_images": trained.evaluation.num_images
    }
    identity = digest([address.weights_sha256, manifest, _without_paths(evaluation)])
    resources = job.resources or trained.resources
    changes = {"base": base.to_dict(), "metric": metric, "resources": resources}
    content = {"base": identity, "checkpoint": address.weights_sha256, "metric": metric}
    return job.model_copy(update=changes), content


def checkpoint_of(job: SearchJob) -> NamedCheckpoint:
    """The checkpoint that is searched."""
    base = CheckpointBase.of(job)
    return NamedCheckpoint(
        "base.checkpoint",
        base.checkpoint,
        find=located_checkpoint,
        suits=lambda about: _images_of(job, base, about.job),
    )


def inputs_of(job: SearchJob) -> list[Input]:
    """The images of a search: those that its base names, or the job of its checkpoint."""
    base = CheckpointBase.of(job)
    trained = checkpoint_of(job).trained(storage_at(job.storage))
    data, test = base.data, base.test_data
    if trained is not None:
        data, test = data or trained.data, test or trained.test_data
    found = []
    if data is not None:
        found.append(Input("base.data", data, trained, "train", test is None))
    if test is not None:
        found.append(Input("base.test_data", test, trained))
    return found


def _images_of(job: SearchJob, base: CheckpointBase, trained: TrainJob) -> tuple[str, str | None]:
    """Training and test images; SpecError where there are none, and the search needs them."""
    data, test = base.data or trained.data, base.test_data or trained.test_data
    if data is None:
        what = "is required: the checkpoint's job names no training images; a URI or a SOURCE"
        raise SpecError([("base.data", what)])
    if test is None and job.confirm_best:
        what = "is required for the confirmation; or set confirm_best=0"
        raise SpecError([("base.test_data", what)])
    return data, test


def _with_images(
    job: SearchJob, base: CheckpointBase, trained: TrainJob, storage: str, *, pack: bool
) -> CheckpointBase:
    """The base with absolute addresses of its images."""
    data, test = _images_of(job, base, trained)
    data = packed(data, "train", test is None, trained, storage, pack=pack)
    if test is not None:
        test = packed(test, "test", False, trained, storage, pack=pack)
        open_transformed(test, trained.augment, trained.shape, "base.test_data")
    return base.model_copy(update={"data": data, "test_data": test})


def _without_paths(evaluation: dict[str, Any]) -> dict[str, Any]:
    """The evaluation with its network named by the hash of its weights alone."""
    return evaluation | {"features": {**evaluation["features"], "path": None}}


def located_checkpoint(checkpoint_ref: str, storage: str) -> CheckpointAddress:
    """The checkpoint of a reference, or of the job that a recipe's name was submitted as.

    Raises SpecError with the command that trains it, where nothing was trained yet.
    """
    recipe, which = recipe_of(checkpoint_ref)
    if recipe is None:
        try:
            return find_checkpoint(checkpoint_ref, storage)
        except CheckpointError as error:
            raise SpecError([("base.checkpoint", str(error))]) from None
    try:
        job_id = trained_id(recipe.train, slugify(recipe.name), storage)
        return find_checkpoint(f"{job_id}{which}", storage)
    except CheckpointError:
        what = (
            f"{checkpoint_ref!r} has no such checkpoint in {storage} yet; run `colddiff submit "
            f"train {recipe.name}` first, or give another reference"
        )
        raise SpecError([("base.checkpoint", what)]) from None


def recipe_of(checkpoint_ref: str) -> tuple[Recipe | None, str]:
    """The recipe that a reference names, if it does, and which checkpoint of its job."""
    name, at, which = checkpoint_ref.partition("@")
    return (load_recipe(name) if name in list_recipes() else None), f"{at}{which}"
