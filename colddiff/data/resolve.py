"""A URI or SOURCE that a job names, resolved to packed images: packed once where need be."""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass
from typing import Any, Protocol

from colddiff.data.left_out import LeftOut
from colddiff.data.manifest import KEY, left_out_of
from colddiff.data.manifest import read_manifest as manifest_in
from colddiff.data.open import open_source, pack_source, read_manifest
from colddiff.data.pack_settings import PackSettings, selected
from colddiff.data.sample_plan import KEY as PLAN
from colddiff.data.sample_set import sample_manifest
from colddiff.data.sources.webdataset_source import tar_keys
from colddiff.errors import ColddiffError, DataError, SpecError
from colddiff.machine.logged_progress import logged_progress
from colddiff.ports import ImageFormat, Manifest, Store
from colddiff.spec import digest, parse
from colddiff.stores.open import absolute, open_store
from colddiff.transforms import PRESETS, Augment, resized_side, transform_problem
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


@dataclass(frozen=True, slots=True)
class Input:
    """Images that a job reads: the field that names them, and how a SOURCE of them is packed.

    ``images`` says what they must be like, if the job knows; ``partial``, of what may be the output
    of a generate job, whether one that is not complete is accepted; ``pack``, the command of its
    recipe that packs them.
    """

    field: str
    address: str
    images: ImageSettings | None = None
    split: str = "test"
    shared: bool = False
    partial: bool | None = None
    pack: str | None = None

    def describe(self, storage: str) -> str:
        """One line: whether the images are there, how many, of what size.

        Looks at this machine's disks alone, contacts nothing and packs nothing. Raises SpecError
        naming the field where a submission would fail.
        """
        try:
            return f"{self.field}: {_described(self, storage)}"
        except ColddiffError as error:
            what = str(error).removeprefix(f"{self.field}: ")
            raise SpecError([(self.field, what)]) from None

    def manifest(self, storage: str) -> Manifest | None:
        """Of the packed images; None where they are not packed on this machine."""
        _, _, uri = _located(self, storage)
        if not uri or "://" in uri:
            return None
        try:
            return _manifest(open_store(absolute(uri)), self.partial)
        except ColddiffError:
            return None

    def count(self, storage: str) -> int | None:
        """How many images there are, packed or to be packed; None where that is not known here."""
        source, settings, _ = _located(self, storage)
        manifest = self.manifest(storage)
        if manifest is not None or source is None:
            return None if manifest is None else manifest.count
        try:
            return _count_of_source(source, settings)
        except ColddiffError:
            return None


SOURCE = re.compile(r"^(digits$|(mnist|cifar10|folder|webdataset):.)")


HOLDOUT = {"folder": 0.1, "webdataset": 0.1}
"""Part held out of a source that has neither a test split nor a default of its own."""


ONE_SIZE = ("digits", "mnist", "cifar10")
"""Sources whose images are all of one size."""


def refuse_other_shape(field: str, uri: str, job: ImageSettings) -> None:
    """Raises DataError where the packed images at ``uri`` are not those ``job`` takes."""
    refuse_other_images(field, read_manifest(uri).image, uri, job)


def refuse_other_images(field: str, image: ImageFormat, uri: str, job: ImageSettings) -> None:
    """Raises DataError where images of this format, stored at ``uri``, do not suit ``job``."""
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
    source, settings, uri = packing(text, split, shared, job, storage)
    if pack:

        def altered(line: str) -> None:
            log.warning("%s: %s", source, line)

        progress = logged_progress(source, "images packed")
        manifest, fresh = pack_source(
            source, uri, on_progress=progress, on_altered=altered, **settings
        )
        if fresh:
            log.info("packed %d images of %s to %s", manifest.count, source, uri)
            for line in left_out_of(manifest):
                log.warning("left out of %s: %s", source, line)
    return uri


def packing(
    text: str, split: str, shared: bool, job: ImageSettings, storage: str
) -> tuple[str, dict[str, Any], str]:
    """A SOURCE with an absolute address, how it is packed for ``job``, and where to."""
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
    return source, settings, f"{storage}/data/{name}/{split}"


def required(images: ImageSettings | None, pack: str | None = None) -> str:
    """What is said where images that a job needs are not named; ``pack``: its recipe's command."""
    settings = ""
    if images is not None:
        # What a preset resizes is best packed at the size that it resizes to: scaled once.
        side = resized_side(images.augment, images.image_size) or images.image_size
        settings = f" --image-size {side} --channels {images.channels}"
    return (
        "is required: the URI of packed shards, or a SOURCE such as mnist:DIR; pack one with "
        f"`{pack or f'colddiff data pack SOURCE --out URI{settings}'}`"
    )


def _located(found: Input, storage: str) -> tuple[str | None, dict[str, Any], str]:
    """The SOURCE, if it is one, how it is packed, and where the packed images are, or will be.

    Where a SOURCE will be is not known without what the images must be like: an empty address.
    """
    if found.partial is not None or not SOURCE.match(found.address):
        return None, {}, found.address
    if found.images is None:
        return found.address, {}, ""
    return packing(found.address, found.split, found.shared, found.images, storage)


def _described(found: Input, storage: str) -> str:
    if not found.address:
        raise SpecError(required(found.images, found.pack))
    source, settings, uri = _located(found, storage)
    if not uri:
        return f"{found.address} is packed when the job is submitted"
    if "://" in uri:
        return f"{found.address} is looked at when the job is submitted"
    store = open_store(absolute(uri))
    if source is None or store.size(KEY) is not None:
        manifest = _manifest(store, found.partial)
        if found.images is not None:
            refuse_other_images(found.field, manifest.image, store.uri, found.images)
        image, colour = manifest.image, manifest.image.channels
        what = {1: "grey", 3: "in colour"}.get(colour, f"of {colour} channels")
        return f"{manifest.count:,} images of {image.height}x{image.width} px, {what}, in {uri}"
    count = _count_of_source(source, settings)
    if count is None:
        return f"{source} is packed when the job is submitted"
    side = parse(PackSettings, settings).image_size
    size = f" at {side} px" if side else ""
    return f"{count:,} images of {source}, to be packed{size} when the job is submitted"


def _count_of_source(source: str, settings: dict[str, Any]) -> int | None:
    """How many images of a SOURCE would be packed; None where only packing tells."""
    kind, _, place = source.partition(":")
    if kind == "webdataset" and "://" not in place:
        tar_keys(open_store(place), LeftOut())  # what is in them is read when they are packed
    if kind in ("digits", "webdataset") or "://" in place:
        return None
    chosen = parse(PackSettings, settings)
    return len(selected(open_source(source, chosen), chosen))


def _manifest(store: Store, partial: bool | None) -> Manifest:
    """Of a packed set; unless ``partial`` is None, also of the samples of a generate job."""
    if partial is None or store.size(PLAN) is None:
        return manifest_in(store)
    return sample_manifest(store, partial=partial)
