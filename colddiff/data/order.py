"""The order a data set is seen in: a function of (manifest, seed, epoch), never of workers."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from colddiff.rng import stream


def epoch_order(digest: str, seed: int, epoch: int, count: int) -> NDArray[np.int64]:
    """A permutation of 0..count - 1 for one epoch of the data set with that manifest digest."""
    return shuffled(seed, f"data/order/{digest}", epoch, count)


def rows_of_steps(
    digest: str,
    count: int,
    *,
    seed: int,
    global_batch_size: int,
    rank: int,
    world_size: int,
    start_step: int,
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Which images a rank sees, step by step: (rows of the data set, positions), int64 [B] each.

    Position p of a run is place p % count of epoch p // count, and each epoch has an order of its
    own over the whole set: any step is reached by arithmetic alone.
    """
    mine = rank_slice(global_batch_size, rank, world_size)
    epoch, order, step = -1, np.empty(0, np.int64), start_step
    while True:
        positions = np.arange(mine.start, mine.stop, dtype=np.int64) + step * global_batch_size
        rows = np.empty(len(positions), np.int64)
        for passed in np.unique(positions // count):
            if passed != epoch:
                epoch, order = int(passed), epoch_order(digest, seed, int(passed), count)
            inside = positions // count == passed
            rows[inside] = order[positions[inside] % count]
        yield rows, positions
        step += 1


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
