"""Scores of single images, and which of them are worth showing."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from torch import Tensor

Float64 = NDArray[np.float64]
Pictures = dict[str, NDArray[np.uint8]]

WORST = 3
"""How many images with the largest error are kept as pictures."""
NEAR_MEDIAN = 4
"""How many candidates for the image of median error are kept until all errors are known."""


@dataclass(frozen=True, slots=True)
class ImageScores:
    """Mean squared error on the scale [0, 1] and SSIM of each image of a column, float64 [n].

    In the order of the images' positions. ``ssim`` is empty for images under its 11 px window.
    """

    mse: Float64
    ssim: Float64

    @classmethod
    def of(cls, images: Tensor, originals: Tensor, similarity: Tensor) -> ImageScores:
        """The scores of a batch [B, C, H, W] on the scale [0, 1], not clamped.

        ``similarity`` is what ``ssim_of`` returns for it.
        """
        error = (images.double() - originals.double()).square().flatten(1).mean(dim=1)
        return cls(error.cpu().numpy(), similarity.cpu().numpy())

    def merge(self, other: ImageScores) -> ImageScores:
        """The scores of both sets of images, those of ``other`` last."""
        return ImageScores(
            np.concatenate([self.mse, other.mse]), np.concatenate([self.ssim, other.ssim])
        )


@dataclass(frozen=True, slots=True)
class Candidate:
    """An image that may be shown: its position, its error, and uint8 [C, H, W] by column."""

    position: int
    error: float
    images: Pictures


def worth_showing(candidates: Iterable[Candidate], errors: Float64) -> tuple[Candidate, ...]:
    """Those of ``candidates`` with the largest errors, and those nearest to the median.

    Sorted by position. Applied to any partition of the images it keeps the overall worst ones.

    Args:
        candidates: of distinct positions.
        errors: of all images seen so far, from which the median is taken.
    """
    found = sorted(candidates, key=lambda one: (-one.error, one.position))
    kept = {one.position: one for one in found[:WORST]}
    for one in nearest_median(found, errors)[:NEAR_MEDIAN]:
        kept[one.position] = one
    return tuple(kept[position] for position in sorted(kept))


def nearest_median(candidates: Iterable[Candidate], errors: Float64) -> list[Candidate]:
    """``candidates`` in the order of their distance from the median of ``errors``."""
    middle = float(np.median(errors))
    return sorted(candidates, key=lambda one: (abs(one.error - middle), one.position))
