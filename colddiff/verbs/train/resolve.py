"""Resolve a training job: pin its packed data, second set and initial weights by digest."""

from __future__ import annotations

from colddiff.checkpoints.format import Checkpoints
from colddiff.checkpoints.references import find_checkpoint
from colddiff.data.open import open_second_set, read_manifest
from colddiff.data.resolve import (
    SOURCE,
    Input,
    packed,
    refuse_other_images,
    refuse_other_shape,
    required,
)
from colddiff.errors import CheckpointError, SpecError
from colddiff.evaluation.best import (
    DIGITS,
    MANY,
    is_distance,
    is_unasked,
    misfit,
    misfit_warning,
)
from colddiff.evaluation.bounds import TEST_IMAGES, refuse_beyond, refuse_more_images
from colddiff.evaluation.generated import check_generated
from colddiff.features.open import located_features
from colddiff.jobs.recipes import packed_option, submitted_recipe
from colddiff.jobs.resolve import ResolvedJob
from colddiff.jobs.results import warn_submitter
from colddiff.jobs.status import is_number
from colddiff.ports import Manifest
from colddiff.samplers import DEFAULT, SAMPLERS, check_samplers
from colddiff.spec import digest
from colddiff.transforms import resized_side
from colddiff.verbs.train.job import TrainJob

SHARED = (
    "data and test_data share images: both hold %s, and are not the two parts that `colddiff data "
    "pack --holdout` makes; scores on them say little of other images"
)

IMAGE_SIZE = "--image-size"


def resolve_training(job: TrainJob, storage: str, *, pack: bool) -> tuple[TrainJob, dict[str, str]]:
    """The job with packed data and pinned initial weights, and the digests of both, by field.

    A SOURCE is packed once into STORAGE/data; without ``pack`` it must have been packed before.
    Raises SpecError, DataError, CheckpointError.
    """
    features = located_features(job.evaluation.features)
    evaluation = job.evaluation.model_copy(update={"features": features})
    job = job.model_copy(update={"evaluation": evaluation})
    if is_evaluated(job):  # before anything is packed
        refuse_beyond(evaluation, job.degradation.build(job.shape), section="evaluation.")
    job, content = _with_other(*_with_data(job, storage, pack), storage, pack)
    return _with_start(job, content, storage)


def inputs_of(job: TrainJob) -> list[Input]:
    """The images that a training names: its data, its test images, the second set of its D."""
    test, other = _test_of(job), job.degradation.second_set
    found = [Input("data", job.data or "", job, "train", test == job.data, pack=_recipe_packs(job))]
    if test is not None:
        found.append(Input("test_data", test, job, "test", test == job.data))
    if other is not None:
        found.append(Input("degradation.other", other, job, "train"))
    return found


def is_evaluated(job: TrainJob) -> bool:
    """Whether the checkpoints of a training are evaluated: it has test images."""
    return _test_of(job) is not None


def _test_of(job: TrainJob) -> str | None:
    """Where the test images are; a SOURCE in `data` has them too."""
    return job.test_data or (job.data if job.data and SOURCE.match(job.data) else None)


def _with_data(job: TrainJob, storage: str, pack: bool) -> tuple[TrainJob, dict[str, str]]:
    if job.data is None:
        raise SpecError([("data", required(job, _recipe_packs(job)))])
    test = _test_of(job)
    shared = test == job.data
    data = packed(job.data, "train", shared, job, storage, pack=pack)
    test_uri = packed(test, "test", shared, job, storage, pack=pack) if test else None
    images = read_manifest(data)
    refuse_other_images("data", images.image, data, job)
    resolved = job.model_copy(update={"data": data, "test_data": test_uri})
    for line in scaled_up_lines(job, images) if pack else ():
        warn_submitter(line)
    if test_uri is not None:
        test_images = read_manifest(test_uri)
        refuse_more_images(
            job.evaluation.num_images, test_images.count, "evaluation.num_images", TEST_IMAGES
        )
        refuse_other_images("test_data", test_images.image, test_uri, job)
        if pack:
            for line in misfit_lines(resolved, test_images.count):
                warn_submitter(line)
            for line in shared_lines(images, test_images, test_uri):
                warn_submitter(line)
    return resolved, {"data": images.digest}


def shared_lines(train: Manifest | None, test: Manifest | None, test_uri: str) -> list[str]:
    """A line where images are in both, as far as these are packed."""
    if train is None or test is None or not share_images(train, test):
        return []
    return [SHARED % (test.source or test_uri)]


def share_images(train: Manifest, test: Manifest) -> bool:
    """Whether images of one are in the other too, as far as their records of packing tell."""
    if train.digest == test.digest:
        return True
    a, b = train.settings or {}, test.settings or {}
    if not train.source or train.source != test.source or "split" not in a or "split" not in b:
        return False
    cut_alike = all(a.get(name) == b.get(name) for name in ("holdout", "group_by"))
    return not (cut_alike and a["split"] != b["split"])


def scaled_up_lines(job: TrainJob, images: Manifest | None) -> list[str]:
    """A line where images are enlarged that the recipe of the job has packed larger, or unscaled.

    ``images`` are the packed training images, None where they are not known.
    """
    recipe, side = submitted_recipe(), resized_side(job.augment, job.image_size)
    command = _recipe_packs(job)
    if recipe is None or command is None or side is None or images is None:
        return []
    height, width = images.image.height, images.image.width
    wanted = packed_option(command, IMAGE_SIZE)
    scaled = (images.settings or {}).get("image_size") is not None
    as_packed = not scaled if wanted is None else min(height, width) >= wanted
    if as_packed or min(height, width) >= side:
        return []
    return [
        f"data: its images will be scaled up from {width}x{height} px to {side}x{side}; images as "
        f"{recipe.name} takes them are packed by `{command}`"
    ]


def _recipe_packs(job: TrainJob) -> str | None:
    """The command of the job's recipe that packs its images, unless the job takes others."""
    recipe = submitted_recipe()
    command = recipe.pack_command if recipe is not None else None
    if command is None:
        return None
    for option, own in ((IMAGE_SIZE, job.image_size), ("--channels", job.channels)):
        if packed_option(command, option) not in (None, own):
            return None
    return command


def misfit_lines(job: TrainJob, num_test: int = MANY) -> list[str]:
    """A line where the Frechet distance says little about the test images, if there are any.

    None on features for another kind of images that nobody asked for, which are not shown, or
    where ``evaluation.best`` is another metric: whoever chose it knows.
    """
    evaluation, best = job.evaluation, job.evaluation.best
    distance, n = evaluation.features.metric, evaluation.num_images or num_test
    chosen = best is not None and not is_distance(best)
    other, alone = misfit(distance, job.shape.chw, MANY), evaluation.generated is not None
    if (
        _test_of(job) is None
        or (chosen and other)
        or is_unasked(distance, other, best, alone=alone)
    ):
        return []
    if best is not None and is_distance(best):
        best = None  # what does not fit is no way out
    elif best is None and distance == DIGITS and DEFAULT in evaluation.samplers:
        best = f"eval/{SAMPLERS[DEFAULT].column}/rmse"
    warning = misfit_warning(distance, job.shape.chw, n, best)
    return [] if warning is None else [f"evaluation: {warning}"]


def _with_other(
    job: TrainJob, content: dict[str, str], storage: str, pack: bool
) -> tuple[TrainJob, dict[str, str]]:
    """Adds the second set, if D mixes one in: packed, and in the identity by its digest."""
    D = job.degradation.build(job.shape)
    check_samplers(job.evaluation.samplers, D, "evaluation.samplers")
    if job.evaluation.generated is not None:
        check_generated(job.evaluation.generated, D, job.terminal)
    if open_second_set(D) is None:
        return job, content
    uri = packed(D.spec.second_set, "train", False, job, storage, pack=pack)
    refuse_other_shape("degradation.other", uri, job)
    spec = job.degradation.with_second_set(uri)
    other = read_manifest(uri).digest
    identity = digest(spec.with_second_set(other).to_dict())
    return (
        job.model_copy(update={"degradation": spec}),
        {**content, "other": other, "degradation": identity},
    )


def _with_start(
    job: TrainJob, content: dict[str, str], storage: str
) -> tuple[TrainJob, dict[str, str]]:
    """Pins ``start_from`` to a step and a weights hash, once, at submission."""
    if job.start_from is None:
        return job, content
    address = find_checkpoint(job.start_from, storage)
    return (
        job.model_copy(update={"start_from": address.uri}),
        {**content, "start_from": address.weights_sha256},
    )


def trained_checkpoint_exists(resolved: ResolvedJob) -> bool:
    """Whether the checkpoint of the step that the result claims is there, whole, and far enough.

    By the sizes of its files; their hashes are verified where they are read.
    """
    folder, job = resolved.folder, resolved.job_as(TrainJob)
    step = (folder.result() or {}).get("step")
    if not is_number(step) or step < job.num_steps:
        return False
    checkpoints = Checkpoints.of(folder)
    try:
        files = checkpoints.files(int(step)).values()
    except CheckpointError:
        return False
    stored = {item.key: item.size for item in folder.store.list(checkpoints.key(int(step)))}
    return all(stored.get(checkpoints.key(int(step), file.name)) == file.bytes for file in files)
