"""What a packed set holds, for a person: images by class, grey levels, and some of its images."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from colddiff.data.open import open_shards
from colddiff.data.readers.image_data import labels_of
from colddiff.ports import Manifest
from colddiff.stores.open import open_store
from colddiff.types import ProgressCallback

MOST_PX = 128
"""Larger images are shown smaller: the mean of blocks of pixels."""


@dataclass(frozen=True, slots=True)
class SetOverview:
    """A packed set at a glance.

    ``classes``: number of images by name of the class; ``unlabelled``: of those without one.
    ``levels``: smallest, mean and largest stored value of the ``images``, which are some of the
    set, evenly chosen, uint8 [N, C, H, W].
    """

    manifest: Manifest
    classes: dict[str, int]
    unlabelled: int
    levels: tuple[int, float, int]
    images: NDArray[np.uint8]


def overview(
    uri: str, num_images: int, on_progress: ProgressCallback = lambda done, total: None
) -> SetOverview:
    """The packed set at ``uri``; all its shards are read for the labels, unless it has none.

    ``on_progress`` counts images. Raises DataError if there is no packed set.
    """
    store = open_store(uri)
    source = open_shards(store)
    manifest = source.manifest
    found = Counter[int | None]()
    if manifest.classes or manifest.settings.get("source") != "folder":
        for done, label in enumerate(labels_of(store, manifest), start=1):
            found[label] += 1
            on_progress(done, manifest.count)
    else:  # a folder without subfolders
        found[None] = manifest.count
    unlabelled = found.pop(None, 0)
    names = dict(enumerate(manifest.classes))
    classes = {name: found.get(n, 0) for n, name in names.items()}
    # Tars that others made have labels without names.
    classes |= {str(n): found[n] for n in sorted(set(found) - set(names), key=lambda n: n or 0)}
    count = min(num_images, manifest.count)
    chosen = np.linspace(0, manifest.count - 1, count).round().astype(int)
    stored = np.concatenate([source.images(int(n), int(n) + 1) for n in chosen])
    levels = int(stored.min()), float(stored.mean()), int(stored.max())
    return SetOverview(manifest, classes, unlabelled, levels, _shown(stored))


def _shown(stored: NDArray[Any]) -> NDArray[np.uint8]:
    """8 bit, and at most ``MOST_PX`` px high and wide."""
    by = -(-max(stored.shape[2:]) // MOST_PX)
    values = stored.astype(np.float32) / (257 if stored.dtype == np.uint16 else 1)
    if by > 1:
        height, width = (side // by * by for side in values.shape[2:])
        blocks = values[:, :, : max(height, 1), : max(width, 1)]
        if height and width:
            shape = (*blocks.shape[:2], height // by, by, width // by, by)
            values = blocks.reshape(shape).mean(axis=(3, 5))
    return np.rint(values).astype(np.uint8)
