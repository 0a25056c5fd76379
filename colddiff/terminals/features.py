"""Features that a Gaussian-mixture terminal is fitted to, streamed over a packed data set."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from colddiff.degradations import Degradation
from colddiff.errors import DataError
from colddiff.ports import ShardSource
from colddiff.terminal import Gmm
from colddiff.transforms import normalise

BATCH = 100
MAX_IMAGES = 100_000
"""With more images a mixture hardly changes, and a job should start within minutes."""


def terminal_features(
    D: Degradation[Any], spec: Gmm, source: ShardSource, max_images: int = MAX_IMAGES
) -> Iterator[NDArray[np.float64]]:
    """Features of D(x0, T), batches float64 [n, F], for all images or an evenly spaced subset.

    Raises DataError if the images do not have D's shape.
    """
    image, count = source.manifest.image, source.manifest.count
    found = (image.channels, image.height, image.width)
    if found != D.shape.chw:
        raise DataError(
            f"terminal: the data has images {'x'.join(map(str, found))}, D is for {D.shape}; "
            "pack it with that image size and number of channels"
        )
    starts = range(0, count, BATCH)
    chosen = min(len(starts), -(-max_images // BATCH))
    for i in range(chosen):
        start = starts[i * len(starts) // chosen]
        pixels = source.images(start, min(start + BATCH, count))
        yield spec.features(D, normalise(torch.from_numpy(pixels))).numpy()
