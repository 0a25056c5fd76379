"""A packed data set as global batches: decoded once into a memory map that all processes share."""

from __future__ import annotations

import io
from collections.abc import Iterator
from functools import cached_property
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from colddiff.adapters.local_cache import LocalCache
from colddiff.adapters.webdataset_tar import TarSample, chw, tar_pixels, tar_samples
from colddiff.errors import DataError
from colddiff.ports import Batch, Manifest, ShardEntry, Store
from colddiff.shards.order import rows_of_steps
from colddiff.shards.verify import read_shard


class MappedShards:
    """Implements ``ShardSource`` for a set whose decoded pixels fit the local disk."""

    def __init__(self, store: Store, manifest: Manifest, cache: LocalCache) -> None:
        self.manifest = manifest
        self._store = store
        self._cache = cache

    def batches(
        self, *, seed: int, global_batch_size: int, rank: int, world_size: int, start_step: int
    ) -> Iterator[Batch]:
        steps = rows_of_steps(
            self.manifest.digest,
            self.manifest.count,
            seed=seed,
            global_batch_size=global_batch_size,
            rank=rank,
            world_size=world_size,
            start_step=start_step,
        )
        for rows, positions in steps:
            yield Batch(np.asarray(self._pixels[rows]), positions)

    def images(self, start: int, stop: int) -> NDArray[np.uint8] | NDArray[np.uint16]:
        check_range(self.manifest, start, stop)
        return np.array(self._pixels[start:stop])

    @cached_property
    def _pixels(self) -> NDArray[Any]:
        """Every image, [N, C, H, W], in manifest order."""
        image = self.manifest.image
        shape = (self.manifest.count, image.channels, image.height, image.width)
        name = f"pixels/{self.manifest.digest}"
        with self._cache.open(name, decoded_bytes(self.manifest), self._decode_all) as file:
            return np.memmap(file, dtype=pixel_type(self.manifest), mode="r", shape=shape)

    def _decode_all(self, file: BinaryIO) -> None:
        for entry in self.manifest.shards:
            data = read_shard(self._store, entry)
            where = f"{self._store.uri}/{entry.key}"
            for sample in counted_samples(io.BytesIO(data), entry, where):
                file.write(chw(tar_pixels(data, sample, self.manifest.image, where)).data)


def counted_samples(file: BinaryIO, entry: ShardEntry, where: str) -> list[TarSample]:
    """The images of a shard, as many as its manifest entry says, else DataError."""
    samples = tar_samples(file, where)
    if len(samples) != entry.count:
        raise DataError(
            f"{where}: holds {len(samples)} images, the manifest says {entry.count}; pack the data "
            "again, or index it with `colddiff data index`"
        )
    return samples


def check_range(manifest: Manifest, start: int, stop: int) -> None:
    """Raises DataError where ``start``..``stop`` is not within the set."""
    if not 0 <= start <= stop <= manifest.count:
        raise DataError(f"images {start}..{stop} asked for, the data set has {manifest.count}")


def pixel_type(manifest: Manifest) -> type[np.uint8 | np.uint16]:
    """numpy's type of one stored value."""
    return np.uint16 if manifest.image.bits == 16 else np.uint8


def decoded_bytes(manifest: Manifest) -> int:
    """Size of all decoded pixels."""
    image = manifest.image
    return manifest.count * image.channels * image.height * image.width * image.bits // 8
