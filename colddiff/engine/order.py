"""The order in which a data set is seen: a function of (manifest, seed, epoch), never of workers."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from colddiff.rng import stream


def epoch_order(digest: str, seed: int, epoch: int, count: int) -> NDArray[np.int64]:
    """A permutation of 0..count - 1 for one epoch of the data set with that manifest digest."""
    return stream(seed, f"data/order/{digest}", epoch).permutation(count)


def rank_slice(global_batch_size: int, rank: int, world_size: int) -> slice:
    """Rank's part of a global batch: contiguous, sizes differing by at most one image."""
    return slice(
        global_batch_size * rank // world_size, global_batch_size * (rank + 1) // world_size
    )
