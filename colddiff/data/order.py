"""Shuffled order of a data set: a function of (manifest, seed, epoch), never of the workers."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from colddiff.rng import stream


def epoch_order(digest: str, seed: int, epoch: int, count: int) -> NDArray[np.int64]:
    """Permutation of 0..count - 1 for one epoch of the data set with this manifest digest."""
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
    """Endless (rows of the data set, positions) of one rank, step by step; int64 [B] each.

    Position p of a run is place p % count of epoch p // count. Each epoch is a new permutation of
    the whole set, so any step can be reached by arithmetic alone.
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
    """Permutation of 0..count - 1, int64 [count].

    Sorts raw words of a Philox stream: numpy guarantees those across versions, but not the results
    of its shuffles, and a resumed job must see the same order.
    """
    words = stream(seed, purpose, index).bit_generator.random_raw(count)
    return np.argsort(words, kind="stable").astype(np.int64)


def rank_slice(global_batch_size: int, rank: int, world_size: int) -> slice:
    """The part of a global batch that ``rank`` gets: contiguous, sizes differ by at most one."""
    return slice(
        global_batch_size * rank // world_size, global_batch_size * (rank + 1) // world_size
    )
