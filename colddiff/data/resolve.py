"""A URI or SOURCE that a job names, resolved to packed images: packed once where need be."""

from __future__ import annotations

import logging
import re
from typing import Any, Protocol

from colddiff.data.manifest import left_out_of
from colddiff.data.open import pack_source, read_manifest
from colddiff.errors import DataError
from colddiff.spec import digest
from colddiff.stores.open import absolute
from colddiff.transforms import PRESETS, Augment, transform_problem
from colddiff.types import ImageShape

log = logging.getLogger(__name__)


class ImageSettings(Protocol):
    """The images a job takes: their size and channels, and what makes them of stored ones."""

    @property
    def image_size(self) -> int: ...
    @property
    def channels(self) -> int: ...
    @property
    def augment(self) -> Augment: ...
    @property
    def shape(self) -> ImageShape: ...


SOURCE = re.compile(r"^(digits$|(mnist|cifar10|folder|webdataset):.)")


HOLDOUT = {"folder": 0.1, "webdataset": 0.1}
"""Part held out of a source that has neither a test split nor a default of its own."""


ONE_SIZE = ("digits", "mnist", "cifar10")
"""Sources whose images are all of one size."""


def refuse_other_shape(field: str, uri: str, job: ImageSettings) -> None:
    """Raises DataError where the packed images at ``uri`` are not those ``job`` takes."""
    image = read_manifest(uri).image
    problem = transform_problem(job.augment, (image.channels, image.height, image.width), job.shape)
    if problem is not None:
        raise DataError(f"{field}: {uri} {problem}")


def packed(
    text: str, split: str, shared: bool, job: ImageSettings, storage: str, *, pack: bool
) -> str:
    """Address of the images of a URI or SOURCE, packed for ``job`` into STORAGE/data if need be.

    ``shared``: training and test images come from one source. Without ``pack`` nothing is packed.
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
    if pack:
        manifest, fresh = pack_source(source, uri, **settings)
        if fresh:
            log.info("packed %d images of %s to %s", manifest.count, source, uri)
            for line in left_out_of(manifest):
                log.warning("left out of %s: %s", source, line)
    return uri
