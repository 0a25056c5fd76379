"""The training images of a search in two parts: one to train on, one to compare trials on.

Neither part has an image of the test set, which only the confirmation sees.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from colddiff.data.manifest import kept_manifest
from colddiff.data.open import pack_source, read_manifest
from colddiff.errors import DataError, SpecError
from colddiff.machine.logged_progress import logged_progress
from colddiff.spec import digest
from colddiff.stores.open import open_store

FEWEST = 32
"""Images below which a Frechet distance, even a small network's, says nothing."""
PARTS: Mapping[str, Literal["train", "test"]] = {"fit": "train", "validation": "test"}
"""The parts, and the split of a source that each is packed as."""


@dataclass(frozen=True, slots=True)
class Splits:
    """Addresses of packed images."""

    fit: str
    validation: str


def split_images(data: str, validation: float, storage: str) -> Splits:
    """Packs the two parts of the set at ``data`` into ``storage``, once; an image's name decides.

    Raises SpecError where a part would have fewer than ``FEWEST`` images.
    """
    return Splits(*(_part(name, data, validation, storage) for name in PARTS))


def validation_part(data: str, validation: float, storage: str) -> str:
    """Packs the part to compare on alone, the same one; returns its address."""
    return _part("validation", data, validation, storage)


def _part(part: str, data: str, validation: float, storage: str) -> str:
    place = f"{storage}/data/split-{digest([read_manifest(data).digest, validation])[:8]}/{part}"
    try:
        # A search asks for its parts when it is submitted and again in each attempt: the place
        # names the set and the part, so that nothing is read of one that is packed there.
        manifest = kept_manifest(open_store(place))
        wanted = {"split": PARTS[part], "holdout": validation}
        if manifest is None or any(manifest.settings.get(n) != v for n, v in wanted.items()):
            manifest, _ = pack_source(
                f"webdataset:{data}",
                place,
                on_progress=logged_progress(f"{part} part of the training images", "images packed"),
                split=PARTS[part],
                holdout=validation,
            )
    except DataError as error:
        raise SpecError([("validation", str(error))]) from None
    refuse_few(part, manifest.count, validation)
    return place


def refuse_few(part: str, count: int, validation: float) -> None:
    """Raises SpecError where a ``part`` of ``count`` images is too small."""
    if count < FEWEST:
        raise SpecError(
            [
                (
                    "validation",
                    f"{validation:g} of the training images leaves {count} in the "
                    f"{part} part, needs {FEWEST}; choose another part, or more images",
                )
            ]
        )
