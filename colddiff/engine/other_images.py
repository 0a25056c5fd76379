"""Images of a second packed set, each chosen by its own generator: the omega of animorphosis."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property

import numpy as np
import torch

from colddiff.engine.inputs import normalise
from colddiff.errors import DataError
from colddiff.ports import ShardSource
from colddiff.types import Image, ImageShape


class OtherImages:
    """Draws from the set that ``open_source`` opens, at the first draw; implements ``DrawImages``.

    Which image a row gets is a function of its generator alone.
    """

    def __init__(self, open_source: Callable[[], ShardSource], shape: ImageShape) -> None:
        self._open_source = open_source
        self._shape = shape

    def __call__(self, rng: Sequence[np.random.Generator]) -> Image:
        """float32 [B, C, H, W] in [-1, 1], one for each generator."""
        count = self._source.manifest.count
        chosen = [int(generator.integers(count)) for generator in rng]
        pixels = np.concatenate([self._source.images(n, n + 1) for n in chosen])
        return normalise(torch.from_numpy(pixels))

    @cached_property
    def _source(self) -> ShardSource:
        source = self._open_source()
        image = source.manifest.image
        found = (image.channels, image.height, image.width)
        if not source.manifest.count:
            raise DataError("degradation.other: the second set is empty; pack at least one image")
        if found != self._shape.chw:
            raise DataError(
                f"degradation.other: holds images {'x'.join(map(str, found))}, the first set "
                f"{self._shape}; pack it again with the same image size and channels"
            )
        return source
