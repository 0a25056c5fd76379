"""Near-duplicate images within one packed set, or between two.

Two images are near duplicates if their difference hashes (64 comparisons of neighbouring pixels in
a 9 x 9 thumbnail) differ in few bits and their 16 x 16 grey thumbnails have a small RMSE.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from colddiff.data.manifests.paged import shard_counts
from colddiff.ports import Manifest, ShardSource
from colddiff.transforms import resized
from colddiff.types import ProgressCallback

MAX_BITS = 4
MAX_RMSE = 0.04
BATCH = 512
PAIRS_AT_ONCE = 2**20
SET_BITS = np.array([bin(n).count("1") for n in range(256)], np.uint8)
LUMA = torch.tensor([299, 587, 114], dtype=torch.int64)[:, None, None]


@dataclass(frozen=True, slots=True)
class Fingerprints:
    """What images are compared by: ``hashes`` uint64 [N], grey ``thumbnails`` uint8 [N, 256]."""

    hashes: NDArray[np.uint64]
    thumbnails: NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class NearPair:
    """Two near-duplicate images, by their indices in their manifests' order."""

    first: int
    second: int
    bits: int
    """Number of the 64 bits in which their hashes differ."""
    rmse: float
    """Between their 16 x 16 grey thumbnails, on the scale [0, 1]."""


def fingerprints(source: ShardSource, on_progress: ProgressCallback | None = None) -> Fingerprints:
    """Fingerprints of all images, in manifest order; ``on_progress`` counts images."""
    count = source.manifest.count
    hashes, thumbnails = np.empty(count, np.uint64), np.empty((count, 256), np.uint8)
    for start in range(0, count, BATCH):
        stop = min(start + BATCH, count)
        grey = _grey(torch.from_numpy(np.ascontiguousarray(source.images(start, stop))))
        small = resized(grey, 9)[:, 0, :8].numpy()
        rises = (small[:, :, 1:] > small[:, :, :-1]).reshape(len(small), 64)
        hashes[start:stop] = np.packbits(rises, axis=1).view(np.uint64)[:, 0]
        thumbnails[start:stop] = resized(grey, 16).reshape(len(grey), 256).numpy()
        if on_progress is not None:
            on_progress(stop, count)
    return Fingerprints(hashes, thumbnails)


def near_pairs(
    a: Fingerprints,
    b: Fingerprints | None = None,
    *,
    max_bits: int = MAX_BITS,
    max_rmse: float = MAX_RMSE,
) -> list[NearPair]:
    """Near-duplicate pairs between ``a`` and ``b``, or within ``a``; sorted, each pair once."""
    other = a if b is None else b
    found: dict[tuple[int, int], NearPair] = {}
    for i, j in _candidates(a.hashes, other.hashes, max_bits + 1):
        if b is None:
            i, j = i[i < j], j[i < j]
        bits = _count_bits(a.hashes[i] ^ other.hashes[j])
        i, j, bits = (part[bits <= max_bits] for part in (i, j, bits))
        difference = a.thumbnails[i].astype(np.float32) - other.thumbnails[j]
        rmse = np.sqrt(np.square(difference).mean(axis=1)) / 255
        for n in np.flatnonzero(rmse <= max_rmse):
            pair = (int(i[n]), int(j[n]))
            found[pair] = NearPair(*pair, int(bits[n]), round(float(rmse[n]), 6))
    return [found[pair] for pair in sorted(found)]


def near_images(
    sources: Sequence[ShardSource],
    max_bits: int,
    max_rmse: float,
    on_progress: ProgressCallback | None = None,
) -> list[dict[str, Any]]:
    """Near-duplicate pairs within one set or between two, JSON-ready: locations and distances."""
    prints = [fingerprints(source, on_progress) for source in sources]
    first, second = sources[0].manifest, sources[-1].manifest
    return [
        {
            "first": _location(first, pair.first),
            "second": _location(second, pair.second),
            "bits": pair.bits,
            "rmse": pair.rmse,
        }
        for pair in near_pairs(*prints, max_bits=max_bits, max_rmse=max_rmse)
    ]


def _location(manifest: Manifest, index: int) -> dict[str, Any]:
    ends = np.cumsum(shard_counts(manifest.shards))
    shard = int(np.searchsorted(ends, index, side="right"))
    before = int(ends[shard - 1]) if shard else 0
    return {"index": index, "shard": manifest.shards[shard].key, "number": index - before}


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
    """Index pairs whose hashes are equal in at least one of ``bands`` bands of bits.

    By the pigeonhole principle, hashes that differ in fewer bits than there are bands agree in at
    least one band: no near duplicate is missed, and few of all pairs are compared.
    """
    edges = np.linspace(0, 64, bands + 1).astype(int)
    for low, high in pairwise(edges):
        # A shift by 64 bits would be undefined; no band is empty, so none occurs.
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


def _count_bits(words: NDArray[np.uint64]) -> NDArray[np.int64]:
    """Number of set bits in each word."""
    bits: NDArray[np.int64] = SET_BITS[words.view(np.uint8)].reshape(-1, 8).sum(axis=1)
    return bits
