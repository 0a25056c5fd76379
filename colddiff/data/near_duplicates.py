"""Images of packed sets that nearly equal others: of the same set, or of the test set.

Two images are near where their difference hashes (64 comparisons of neighbours in a 9 x 9 picture)
differ in a few bits, and then their 16 x 16 pictures in grey differ little.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from colddiff.ports import Manifest, ShardSource
from colddiff.transforms import resized

MAX_BITS = 4
MAX_RMSE = 0.04
BATCH = 512
PAIRS_AT_ONCE = 2**20
POPULATION = np.array([bin(n).count("1") for n in range(256)], np.uint8)
LUMA = torch.tensor([299, 587, 114], dtype=torch.int64)[:, None, None]


@dataclass(frozen=True, slots=True)
class Fingerprints:
    """What images are compared by: ``hashes`` uint64 [N], ``pictures`` uint8 [N, 256]."""

    hashes: NDArray[np.uint64]
    pictures: NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class NearPair:
    """Images number ``first`` and ``second``, each in the order of its manifest."""

    first: int
    second: int
    bits: int
    """In how many of 64 bits their hashes differ."""
    rmse: float
    """Between their 16 x 16 pictures in grey, on the scale [0, 1]."""


def fingerprints(
    source: ShardSource, on_progress: Callable[[int, int], None] | None = None
) -> Fingerprints:
    """Those of all images, in manifest order; ``on_progress`` gets images done and in all."""
    count = source.manifest.count
    hashes, pictures = np.empty(count, np.uint64), np.empty((count, 256), np.uint8)
    for start in range(0, count, BATCH):
        stop = min(start + BATCH, count)
        grey = _grey(torch.from_numpy(np.ascontiguousarray(source.images(start, stop))))
        small = resized(grey, 9)[:, 0, :8].numpy()
        rises = (small[:, :, 1:] > small[:, :, :-1]).reshape(len(small), 64)
        hashes[start:stop] = np.packbits(rises, axis=1).view(np.uint64)[:, 0]
        pictures[start:stop] = resized(grey, 16).reshape(len(grey), 256).numpy()
        if on_progress is not None:
            on_progress(stop, count)
    return Fingerprints(hashes, pictures)


def near_pairs(
    a: Fingerprints,
    b: Fingerprints | None = None,
    *,
    max_bits: int = MAX_BITS,
    max_rmse: float = MAX_RMSE,
) -> list[NearPair]:
    """Near pairs of an image of ``a`` and one of ``b``, or of two of ``a``; in order, each once."""
    other = a if b is None else b
    found: dict[tuple[int, int], NearPair] = {}
    for i, j in _candidates(a.hashes, other.hashes, max_bits + 1):
        if b is None:
            i, j = i[i < j], j[i < j]
        bits = _population(a.hashes[i] ^ other.hashes[j])
        i, j, bits = (part[bits <= max_bits] for part in (i, j, bits))
        difference = a.pictures[i].astype(np.float32) - other.pictures[j]
        rmse = np.sqrt(np.square(difference).mean(axis=1)) / 255
        for n in np.flatnonzero(rmse <= max_rmse):
            pair = (int(i[n]), int(j[n]))
            found[pair] = NearPair(*pair, int(bits[n]), round(float(rmse[n]), 6))
    return [found[pair] for pair in sorted(found)]


def near_images(
    sources: Sequence[ShardSource],
    max_bits: int,
    max_rmse: float,
    on_progress: Callable[[int, int], None] | None = None,
) -> list[dict[str, Any]]:
    """Near pairs within one set or between two, JSON-ready: where both lie, and how near."""
    prints = [fingerprints(source, on_progress) for source in sources]
    first, second = sources[0].manifest, sources[-1].manifest
    return [
        {
            "first": _place(first, pair.first),
            "second": _place(second, pair.second),
            "bits": pair.bits,
            "rmse": pair.rmse,
        }
        for pair in near_pairs(*prints, max_bits=max_bits, max_rmse=max_rmse)
    ]


def _place(manifest: Manifest, index: int) -> dict[str, Any]:
    number = index
    for shard in manifest.shards:
        if number < shard.count:
            return {"index": index, "shard": shard.key, "number": number}
        number -= shard.count
    raise IndexError(index)


def _grey(images: torch.Tensor) -> torch.Tensor:
    """uint8 [B, 1, H, W] of uint8 or uint16 images of any number of channels."""
    values = images.to(torch.int64)
    if images.dtype == torch.uint16:
        values = values // 257
    if values.shape[1] == 3:
        return ((values * LUMA).sum(1, keepdim=True) // 1000).to(torch.uint8)
    return values[:, :1].to(torch.uint8)


def _candidates(
    a: NDArray[np.uint64], b: NDArray[np.uint64], bands: int
) -> Iterator[tuple[NDArray[Any], NDArray[Any]]]:
    """Pairs that are equal in at least one of ``bands`` parts of their hashes.

    Hashes that differ in fewer bits than there are parts are equal in one of them: nothing is
    missed, and hardly any of all pairs is looked at.
    """
    edges = np.linspace(0, 64, bands + 1).astype(int)
    for low, high in pairwise(edges):
        # A shift by all 64 bits would be undefined, but no band is empty.
        a_keys, b_keys = ((h << np.uint64(64 - high)) >> np.uint64(64 - high + low) for h in (a, b))
        order = np.argsort(b_keys, kind="stable")
        sorted_keys = b_keys[order]
        starts = np.searchsorted(sorted_keys, a_keys, side="left")
        counts = np.searchsorted(sorted_keys, a_keys, side="right") - starts
        ends = np.cumsum(counts)
        for first in range(0, int(ends[-1]) if len(ends) else 0, PAIRS_AT_ONCE):
            numbers = np.arange(first, min(first + PAIRS_AT_ONCE, int(ends[-1])))
            i = np.searchsorted(ends, numbers, side="right")
            yield i, order[starts[i] + numbers - (ends[i] - counts[i])]


def _population(words: NDArray[np.uint64]) -> NDArray[np.int64]:
    """How many bits are set in each word."""
    bits: NDArray[np.int64] = POPULATION[words.view(np.uint8)].reshape(-1, 8).sum(axis=1)
    return bits
