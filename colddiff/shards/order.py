"""The order a data set is seen in: a function of (manifest, seed, epoch), never of workers."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from colddiff.rng import stream


def epoch_order(digest: str, seed: int, epoch: int, count: int) -> NDArray[np.int64]:
    """A permutation of 0..count - 1 for one epoch of the data set with that manifest digest."""
    return shuffled(seed, f"data/order/{digest}", epoch, count)


def shuffled(seed: int, purpose: str, index: int, count: int) -> NDArray[np.int64]:
    """A permutation of 0..count - 1, int64 [count].

    Sorts the raw words of a Philox stream: numpy keeps those for ever, while its own shuffles may
    change from one version to the next, and a resumed job must not see another order.
    """
    words = stream(seed, purpose, index).bit_generator.random_raw(count)
    return np.argsort(words, kind="stable").astype(np.int64)


def rank_slice(global_batch_size: int, rank: int, world_size: int) -> slice:
    """Rank's part of a global batch: contiguous, sizes differing by at most one image."""
    return slice(
        global_batch_size * rank // world_size, global_batch_size * (rank + 1) // world_size
    )
