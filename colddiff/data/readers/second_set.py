"""Images of a second packed set, each chosen by its own generator: the omega of animorphosis."""

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


class OtherImages:
    """Draws from the set that ``open_source`` opens, at the first draw; implements ``DrawImages``.

    Which image a row gets, and which crop of it, is a function of its generator alone.
    """

    def __init__(
        self, open_source: Callable[[], ShardSource], shape: ImageShape, augment: Augment = "none"
    ) -> None:
        self._open_source = open_source
        self._shape = shape
        self._augment: Augment = augment

    def __call__(self, rng: Sequence[np.random.Generator]) -> Image:
        """float32 [B, C, H, W] in [-1, 1], one for each generator."""
        source, transform = self._opened
        chosen = [int(generator.integers(source.manifest.count)) for generator in rng]
        pixels = np.concatenate([source.images(n, n + 1) for n in chosen])
        return normalise(transform.train(torch.from_numpy(pixels), transform.views_of(rng)))

    @cached_property
    def _opened(self) -> tuple[ShardSource, Transform]:
        source = self._open_source()
        if not source.manifest.count:
            raise DataError("degradation.other: the second set is empty; pack at least one image")
        return source, transform_of(source, self._augment, self._shape, "degradation.other")
