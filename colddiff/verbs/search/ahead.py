"""What a submission would find of a search's space, found before it where images are at hand."""

from __future__ import annotations

import tempfile
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from colddiff.data.open import open_second_set, open_source, pack_source, read_manifest
from colddiff.data.pack_settings import PackSettings, selected
from colddiff.data.resolve import SOURCE, packing
from colddiff.errors import DataError, SpecError
from colddiff.stores.open import absolute
from colddiff.transforms import Transform
from colddiff.verbs.search.job import SearchJob
from colddiff.verbs.search.points.same_end import end_rows, with_omega
from colddiff.verbs.search.search_task import refuse_unreachable, task_on
from colddiff.verbs.search.settings import base_of
from colddiff.verbs.search.splits import PARTS, Splits, refuse_few

if TYPE_CHECKING:
    from colddiff.verbs.train.job import TrainJob

AT_SUBMISSION = (
    "whether points of the space can be compared with the base is checked at submission: "
)
MOST_IMAGES = 200_000
"""Sets that are listed for this: a listing reads each tar of the set."""


def check_ahead(job: SearchJob) -> list[str]:
    """What a dry run says of the check of the space that a submission makes.

    Made on the same images, so that it refuses with the same SpecError. Contacts nothing, and
    writes to a temporary folder only.
    """
    base = base_of(job)
    if base.data is None:
        return []  # the dry run says that there are no images
    D = base.degradation.build(base.shape)
    try:
        why = _out_of_reach(base)
        if why is not None:
            return [f"{AT_SUBMISSION}{why}"]
        stored = _fit_images(base, job.validation)
        x0, omega = with_omega(stored, D, job.seed, open_second_set(D, base.augment))
    except DataError:
        return []  # the dry run says of each set why it cannot be used
    refuse_unreachable(task_on(job, base, Splits("", ""), x0, omega))
    return ["points of the space can be compared with the base, as checked on its images"]


def _out_of_reach(base: TrainJob) -> str | None:
    """Why the images of a base cannot be read now; None where they can."""
    named = [base.data or "", base.degradation.second_set or ""]
    for address in named:
        if address != "digits" and SOURCE.match(address):
            return f"{address} is not packed"
        if "://" in address:
            return f"{address} is not on this machine"
    if base.data != "digits" and (count := read_manifest(absolute(named[0])).count) > MOST_IMAGES:
        return f"{named[0]} has {count:,} images"
    return None


def _fit_images(base: TrainJob, validation: float) -> NDArray[np.uint8]:
    """The images that a search of ``base`` measures ends on, transformed [N, C, H, W]."""
    assert base.data is not None
    if base.data != "digits":
        return _chosen(absolute(base.data), base, validation)
    with tempfile.TemporaryDirectory() as place:
        source, settings, _ = packing(base.data, "train", False, base, place)
        pack_source(source, place, **settings)
        return _chosen(place, base, validation)


def _chosen(uri: str, base: TrainJob, validation: float) -> NDArray[np.uint8]:
    """Those of the packed set at ``uri``, found in it without packing its parts."""
    manifest = read_manifest(uri)
    source = open_source(f"webdataset:{uri}")
    try:
        fit = selected(source, PackSettings(split=PARTS["fit"], holdout=validation))
    except DataError as error:
        raise SpecError([("validation", str(error))]) from None
    refuse_few("fit", len(fit), validation)
    refuse_few("validation", manifest.count - len(fit), validation)
    pixels = np.stack([source.load(fit[row]) for row in end_rows(len(fit))])
    image = manifest.image
    transform = Transform(base.augment, (image.channels, image.height, image.width), base.shape)
    stored = torch.from_numpy(np.ascontiguousarray(pixels.transpose(0, 3, 1, 2)))
    made: NDArray[np.uint8] = transform.test(stored).numpy()
    return made
