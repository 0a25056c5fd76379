"""An in-memory data set: the counterpart of packed shards, for tests and for training on arrays."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from colddiff.data.order import rows_of_steps
from colddiff.ports import Batch, ImageFormat, Manifest


class MemoryShards:
    """``ShardSource`` over an array of images, uint8 or uint16 [N, C, H, W]."""

    def __init__(self, images: NDArray[Any], source: str = "memory") -> None:
        self._images = images
        count, channels, height, width = images.shape
        self.manifest = Manifest(
            count=count,
            image=ImageFormat(channels, height, width, bits=8 * images.itemsize),
            shards=(),
            classes=(),
            source=source,
            settings={},
            digest=hashlib.sha256(np.ascontiguousarray(images).tobytes()).hexdigest(),
        )

    def batches(
        self, *, seed: int, global_batch_size: int, rank: int, world_size: int, start_step: int
    ) -> Iterator[Batch]:
        steps = rows_of_steps(
            self.manifest.digest,
            len(self._images),
            seed=seed,
            global_batch_size=global_batch_size,
            rank=rank,
            world_size=world_size,
            start_step=start_step,
        )
        for rows, positions in steps:
            yield Batch(self._images[rows], positions)

    def images(self, start: int, stop: int) -> NDArray[Any]:
        return self._images[start:stop]
