"""A source of random images that says which of them were loaded."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from colddiff.data.pil_images import Pixels
from colddiff.data.sources.source import SourceEntry, WholeSource


class Drawn(WholeSource):
    """A source of random images made in the test; counts how many were loaded."""

    uri = "drawn:here"
    classes = ("even", "odd")
    splits: tuple[str, ...] = ()
    default_holdout: float | None = None

    def __init__(
        self,
        count: int = 23,
        shape: tuple[int, int, int] = (8, 8, 1),
        sorted_by_name: bool = False,
        dtype: type[np.uint8 | np.uint16] = np.uint8,
    ) -> None:
        self.sorted_by_name = sorted_by_name
        top = np.iinfo(dtype).max + 1
        drawn = np.random.default_rng(0).integers(0, top, (count, *shape))
        self.pixels: NDArray[np.uint8] = drawn.astype(dtype)
        self.loaded: list[int] = []
        self.fails_at: int | None = None

    def entries(self, split: str | None) -> list[SourceEntry]:
        return [SourceEntry(f"image-{n:03d}", n % 2, n, 64) for n in range(len(self.pixels))]

    def load(self, entry: SourceEntry) -> Pixels:
        if entry.index == self.fails_at:
            raise KeyboardInterrupt
        self.loaded.append(entry.index)
        pixels: Pixels = self.pixels[entry.index]
        return pixels
