"""A training job's addresses made definite: packed data, a second set, a start."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from colddiff import connect
from colddiff.connect import absolute
from colddiff.errors import DataError, SpecError
from colddiff.jobspec import TrainJob
from colddiff.references import find_checkpoint
from colddiff.spec import digest
from colddiff.transforms import PRESETS, unsuited

SOURCE = re.compile(r"^(digits$|(mnist|cifar10|folder|webdataset):.)")
HOLDOUT = {"folder": 0.1, "webdataset": 0.1}
"""Part held out of a source that has neither a test split nor a default of its own."""
ONE_SIZE = ("digits", "mnist", "cifar10")
"""Sources whose images are all of one size."""

Talk = Callable[[str], None]


def resolve_training(
    job: TrainJob, storage: str, talk: Talk | None
) -> tuple[TrainJob, dict[str, str]]:
    """The job with packed data and a definite start, and the digests that stand for them.

    A SOURCE is packed once into STORAGE/data; without ``talk`` it has to be there already.
    Raises SpecError, DataError, CheckpointError.
    """
    features = connect.located_features(job.evaluation.features)
    evaluation = job.evaluation.model_copy(update={"features": features})
    job = job.model_copy(update={"evaluation": evaluation})
    job, content = _with_other(*_with_data(job, storage, talk), storage, talk)
    return _with_start(job, content, storage)


def _with_data(job: TrainJob, storage: str, talk: Talk | None) -> tuple[TrainJob, dict[str, str]]:
    if job.data is None:
        raise SpecError(
            [
                (
                    "data",
                    "is required: the URI of packed shards, or a SOURCE such as mnist:DIR; pack "
                    "one with `colddiff data pack SOURCE --out URI "
                    f"--image-size {job.image_size} --channels {job.channels}`",
                )
            ]
        )
    test = job.test_data or (job.data if SOURCE.match(job.data) else None)
    shared = test == job.data
    data = packed(job.data, "train", shared, job, storage, talk)
    test_uri = packed(test, "test", shared, job, storage, talk) if test else None
    for field, uri in (("data", data), ("test_data", test_uri)):
        if uri is not None:
            refuse_other_shape(field, uri, job)
    resolved = job.model_copy(update={"data": data, "test_data": test_uri})
    return resolved, {"data": connect.read_manifest(data).digest}


def _with_other(
    job: TrainJob, content: dict[str, str], storage: str, talk: Talk | None
) -> tuple[TrainJob, dict[str, str]]:
    """The second set, where D mixes one in: packed, and in the identity by its digest."""
    D = job.degradation.build(job.shape)
    if connect.open_other(D) is None:
        return job, content
    uri = packed(D.spec.other, "train", False, job, storage, talk)
    refuse_other_shape("degradation.other", uri, job)
    spec = job.degradation.model_copy(update={"other": uri})
    other = connect.read_manifest(uri).digest
    identity = digest({**spec.to_dict(), "other": other})
    return (
        job.model_copy(update={"degradation": spec}),
        {**content, "other": other, "degradation": identity},
    )


def _with_start(
    job: TrainJob, content: dict[str, str], storage: str
) -> tuple[TrainJob, dict[str, str]]:
    """The start made definite: a step and a weights hash, resolved once, at submission."""
    if job.start_from is None:
        return job, content
    address = find_checkpoint(job.start_from, storage)
    return (
        job.model_copy(update={"start_from": address.uri}),
        {**content, "start_from": address.weights_sha256},
    )


def refuse_other_shape(field: str, uri: str, job: TrainJob) -> None:
    """Raises DataError where the packed images at ``uri`` are not those ``job`` takes."""
    image = connect.read_manifest(uri).image
    problem = unsuited(job.augment, (image.channels, image.height, image.width), job.shape)
    if problem is not None:
        raise DataError(f"{field}: {uri} {problem}")


def packed(
    text: str, split: str, shared: bool, job: TrainJob, storage: str, talk: Talk | None
) -> str:
    """Address of the images of a URI or SOURCE, packed for ``job`` into STORAGE/data if need be.

    ``shared``: training and test images come of one source. Without ``talk`` nothing is packed.
    """
    if not SOURCE.match(text):
        return absolute(text)
    kind, _, place = text.partition(":")
    source = f"{kind}:{absolute(place)}" if place else kind
    settings: dict[str, Any] = {"channels": job.channels}
    # A preset that resizes does so from the images as they were published.
    if PRESETS[job.augment].exact or kind not in ONE_SIZE:
        settings["image_size"] = job.image_size
    if kind not in HOLDOUT:
        settings["split"] = split
    elif shared:
        settings |= {"split": split, "holdout": HOLDOUT[kind]}
    name = f"{kind}-{digest([source, settings])[:8]}"
    uri = f"{storage}/data/{name}/{split}"
    if talk is not None:
        connect.pack_source(source, uri, talk=talk, **settings)
    return uri
