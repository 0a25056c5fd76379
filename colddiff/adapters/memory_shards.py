"""A data set in memory: the twin of packed shards for tests and for `colddiff.train` on arrays."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from colddiff.shards.order import epoch_order, rank_slice
from colddiff.ports import Batch, ImageFormat, Manifest


class MemoryShards:
    """Implements ``ShardSource`` over images uint8 or uint16 [N, C, H, W]."""

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
        count, mine = len(self._images), rank_slice(global_batch_size, rank, world_size)
        step, epoch, order = start_step, -1, np.empty(0, np.int64)
        while True:
            positions = np.arange(mine.start, mine.stop) + step * global_batch_size
            rows = np.empty(len(positions), np.int64)
            for e in np.unique(positions // count):
                if e != epoch:
                    epoch, order = int(e), epoch_order(self.manifest.digest, seed, int(e), count)
                inside = positions // count == e
                rows[inside] = order[positions[inside] % count]
            yield Batch(self._images[rows], positions)
            step += 1

    def images(self, start: int, stop: int) -> NDArray[Any]:
        return self._images[start:stop]
