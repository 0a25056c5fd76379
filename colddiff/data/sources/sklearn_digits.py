"""Source: the digits bundled with scikit-learn, real images that need no download."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import numpy as np
from numpy.typing import NDArray

from colddiff.data.pil_images import Pixels
from colddiff.data.sources.source import SourceEntry, WholeSource


class DigitsSource(WholeSource):
    """scikit-learn's 1797 handwritten digits, 8x8; values 0..16 are scaled to 0..255."""

    uri = "digits"
    classes = tuple("0123456789")
    splits: tuple[str, ...] = ()
    sorted_by_name = False
    default_holdout: float | None = 0.2

    def entries(self, split: str | None) -> Sequence[SourceEntry]:
        _, labels = _digits()
        return [SourceEntry(f"digits/{n:04d}", int(y), n, 64) for n, y in enumerate(labels)]

    def load(self, entry: SourceEntry) -> Pixels:
        pixels: Pixels = _digits()[0][entry.index]
        return pixels


@cache
def _digits() -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """All images and labels: scikit-learn parses them as text, which takes a third of a second."""
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    pixels = np.rint(images.reshape(-1, 8, 8, 1) * (255 / 16)).astype(np.uint8)
    pixels.flags.writeable = False  # of all who read them
    return pixels, labels.astype(np.int64)
