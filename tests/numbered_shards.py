"""A packed set whose images hold their own numbers, so that any order can be read off them."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from colddiff.data.manifest import make_manifest, write_manifest
from colddiff.data.open import open_shards
from colddiff.data.tars import image_members, shard_entry, shard_key, write_tar
from colddiff.ports import Batch, ImageFormat, ShardEntry, ShardSource, Store
from colddiff.stores.memory_store import MemoryStore

COUNT, SHARD = 103, 9


def numbered(count: int = COUNT, shard: int = SHARD, store: Store | None = None) -> Store:
    """A packed set whose image n holds n in its four pixels, high and low byte twice."""
    store = store or MemoryStore()
    entries: list[ShardEntry] = []
    for start in range(0, count, shard):
        part = range(start, min(start + shard, count))
        members = [m for n in part for m in image_members(f"{n:012d}", pixels_of(n), {"n": n})]
        data = write_tar(members)
        key = shard_key(len(entries))
        store.put(key, data)
        entries.append(shard_entry(key, len(part), data))
    write_manifest(store, make_manifest(ImageFormat(1, 2, 2), entries))
    return store


def pixels_of(n: int) -> NDArray[np.uint8]:
    return np.array([n // 256, n % 256] * 2, np.uint8).reshape(2, 2, 1)


def numbers(images: NDArray[Any]) -> list[int]:
    return [int(image[0, 0, 0]) * 256 + int(image[0, 0, 1]) for image in images]


def opened(kind: str, store: Store, folder: Path) -> ShardSource:
    bound = 2**40 if kind == "mapped" else 0
    return open_shards(store, str(folder), max_decoded_bytes=bound)


def steps(
    source: ShardSource,
    count: int,
    *,
    batch: int = 16,
    world: int = 1,
    start: int = 0,
    seed: int = 0,
) -> list[tuple[list[int], list[int]]]:
    """Image numbers and positions of ``count`` global batches, put together from all ranks."""
    ranks: list[Iterator[Batch]] = [
        source.batches(
            seed=seed, global_batch_size=batch, rank=rank, world_size=world, start_step=start
        )
        for rank in range(world)
    ]
    found = []
    for slices in islice(zip(*ranks, strict=True), count):
        sizes = [len(part.images) for part in slices]
        assert max(sizes) - min(sizes) <= 1
        assert all(len(part.positions) == len(part.images) for part in slices)
        found.append(
            (
                [n for part in slices for n in numbers(part.images)],
                [int(p) for part in slices for p in part.positions],
            )
        )
    for rank in ranks:
        rank.close()  # type: ignore[attr-defined]
    return found
