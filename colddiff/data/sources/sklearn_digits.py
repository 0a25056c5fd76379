"""Source: the digits bundled with scikit-learn, real images that need no download."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from functools import cache
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
    """All images and labels, as ``load_digits`` reads them; its import alone takes seconds."""
    rows = np.loadtxt(_table(), delimiter=",", dtype=np.float64)
    pixels = np.rint(rows[:, :-1].reshape(-1, 8, 8, 1) * (255 / 16)).astype(np.uint8)
    pixels.flags.writeable = False  # of all who read them
    return pixels, rows[:, -1].astype(np.int64)


def _table() -> Path:
    """The file of the digits in the installed scikit-learn, which is not imported."""
    package = importlib.util.find_spec("sklearn")
    for folder in (package.submodule_search_locations or ()) if package else ():
        path = Path(folder) / "datasets" / "data" / "digits.csv.gz"
        if path.is_file():
            return path
    raise DataError("digits: scikit-learn, which brings them, is not installed; pip install it")
