"""Source: the digits bundled with scikit-learn, real images that need no download."""

from __future__ import annotations

import gzip
from collections.abc import Sequence
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from colddiff.data.pil_images import Pixels
from colddiff.data.sources.source import SourceEntry, WholeSource
from colddiff.errors import DataError


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
    """All images and labels, as ``sklearn.datasets.load_digits`` reads them.

    From its file: importing scikit-learn takes 3 s of work, most of it for scipy and pandas.
    """
    package = find_spec("sklearn")
    assert package is not None
    assert package.origin is not None
    path = Path(package.origin).parent / "datasets" / "data" / "digits.csv.gz"
    try:
        with gzip.open(path, "rt") as lines:
            table = np.loadtxt(lines, delimiter=",")
    except OSError as error:
        raise DataError(
            f"digits: cannot read {path} ({error}); install a scikit-learn that has it, or train "
            "on other images, such as mnist:DIR"
        ) from None
    pixels = np.rint(table[:, :-1].reshape(-1, 8, 8, 1) * (255 / 16)).astype(np.uint8)
    pixels.flags.writeable = False  # of all who read them
    return pixels, table[:, -1].astype(np.int64)
