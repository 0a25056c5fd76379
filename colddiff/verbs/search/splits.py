"""The training images of a search in two parts: one to train on, one to compare trials on.

Neither part has an image of the test set, which only the confirmation sees.
"""

from __future__ import annotations

from dataclasses import dataclass

from colddiff.data.open import pack_source, read_manifest
from colddiff.errors import DataError, SpecError
from colddiff.spec import digest

FEWEST = 32
"""Images below which a Frechet distance, even a small network's, says nothing."""


@dataclass(frozen=True, slots=True)
class Splits:
    """Addresses of packed images."""

    fit: str
    validation: str


def split_images(data: str, validation: float, storage: str) -> Splits:
    """Packs the two parts of the set at ``data`` into ``storage``, once; an image's name decides.

    Raises SpecError where a part would have fewer than ``FEWEST`` images.
    """
    source = f"webdataset:{data}"
    place = f"{storage}/data/split-{digest([read_manifest(data).digest, validation])[:8]}"
    found = {}
    for part, split in (("fit", "train"), ("validation", "test")):
        try:
            manifest, _ = pack_source(source, f"{place}/{part}", split=split, holdout=validation)
        except DataError as error:
            raise SpecError([("validation", str(error))]) from None
        if manifest.count < FEWEST:
            raise SpecError(
                [
                    (
                        "validation",
                        f"{validation:g} of the training images leaves {manifest.count} in the "
                        f"{part} part, needs {FEWEST}; choose another part, or more images",
                    )
                ]
            )
        found[part] = f"{place}/{part}"
    return Splits(found["fit"], found["validation"])
