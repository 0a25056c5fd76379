"""Draws images from a second packed set: the omega of animorphosis."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property

import numpy as np
import torch

from colddiff.data.readers.transformed import transform_of
from colddiff.errors import DataError
from colddiff.ports import ShardSource
from colddiff.transforms import Augment, Transform, normalise
from colddiff.types import Image, ImageShape


class SecondSet:
    """Draws from the set that ``open_source`` opens on the first draw; implements ``DrawImages``.

    The image of a row, and its crop, are functions of that row's generator alone.
    """

    def __init__(
        self, open_source: Callable[[], ShardSource], shape: ImageShape, augment: Augment = "none"
    ) -> None:
        self._open_source = open_source
        self._shape = shape
        self._augment: Augment = augment

    def __call__(self, rng: Sequence[np.random.Generator]) -> Image:
        """One image per generator, float32 [B, C, H, W] in [-1, 1]."""
        source, transform = self._opened
        chosen = [int(generator.integers(source.manifest.count)) for generator in rng]
        pixels = np.concatenate([source.images(n, n + 1) for n in chosen])
        return normalise(transform.train(torch.from_numpy(pixels), transform.draw_crops_from(rng)))

    @cached_property
    def _opened(self) -> tuple[ShardSource, Transform]:
        source = self._open_source()
        if not source.manifest.count:
            raise DataError("degradation.other: the second set is empty; pack at least one image")
        return source, transform_of(source, self._augment, self._shape, "degradation.other")
