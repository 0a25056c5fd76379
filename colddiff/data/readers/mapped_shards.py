"""Reads a packed data set from a memory map of decoded pixels, shared by all processes."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from itertools import zip_longest
from typing import Any, BinaryIO, TypeVar

import numpy as np
from numpy.typing import NDArray

from colddiff.data.order import rows_of_steps
from colddiff.data.readers.local_cache import LocalCache
from colddiff.data.verify import read_shard
from colddiff.data.webdataset_tar import Buffer, TarSample, tar_pixels, tar_samples
from colddiff.errors import DataError
from colddiff.ports import Batch, Manifest, ShardEntry, Store

T = TypeVar("T")
CHUNK = 32
"""Images that a thread decodes per task."""


class MappedShards:
    """``ShardSource`` of a set whose decoded pixels are cached on the local disk."""

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
        """All images, [N, C, H, W], in manifest order."""
        shape = (self.manifest.count, *image_shape(self.manifest))
        name = f"pixels/{self.manifest.digest}"
        with self._cache.open(name, decoded_bytes(self.manifest), self._decode_all) as file:
            return np.memmap(file, dtype=pixel_type(self.manifest), mode="r", shape=shape)

    def _decode_all(self, file: BinaryIO) -> None:
        # One shard is decoded while the next is fetched.
        with ThreadPoolExecutor(decoding_threads()) as pool, ThreadPoolExecutor(1) as fetcher:
            entries = self.manifest.shards
            ahead = fetcher.submit(read_shard, self._store, entries[0])
            for entry, following in zip_longest(entries, entries[1:]):
                data = ahead.result()
                if following is not None:
                    ahead = fetcher.submit(read_shard, self._store, following)
                where = f"{self._store.uri}/{entry.key}"
                samples = counted_samples(io.BytesIO(data), entry, where)
                pixels = decode_samples(
                    pool, self.manifest, [(data, s, where) for s in samples], str
                )
                file.write(pixels.data)


def decode_samples(
    pool: ThreadPoolExecutor,
    manifest: Manifest,
    samples: Sequence[tuple[Buffer, TarSample, T]],
    where: Callable[[T], str],
) -> NDArray[Any]:
    """Decode (tar, sample, tar's id) to pixels [N, C, H, W], a chunk per task.

    ``where`` names a tar, by its id, in errors.
    """
    image = manifest.image
    pixels = np.empty((len(samples), *image_shape(manifest)), dtype=pixel_type(manifest))

    def decode(numbers: range) -> None:
        for n in numbers:
            tar, sample, which = samples[n]
            pixels[n] = tar_pixels(tar, sample, image, where(which)).transpose(2, 0, 1)

    chunk = max(1, min(CHUNK, -(-len(samples) // decoding_threads())))
    starts = range(0, len(samples), chunk)
    # Consumed as a list, so that the first error of any chunk is raised.
    list(pool.map(decode, [range(n, min(n + chunk, len(samples))) for n in starts]))
    return pixels


def decoding_threads() -> int:
    """Number of decoding threads: Pillow releases the GIL while it decodes."""
    return min(8, os.cpu_count() or 1)


def counted_samples(file: BinaryIO, entry: ShardEntry, where: str) -> list[TarSample]:
    """The images of a shard; raises DataError unless there are as many as the manifest says."""
    samples = tar_samples(file, where)
    if len(samples) != entry.count:
        raise DataError(
            f"{where}: holds {len(samples)} images, the manifest says {entry.count}; pack the data "
            "again, or index it with `colddiff data index`"
        )
    return samples


def check_range(manifest: Manifest, start: int, stop: int) -> None:
    """Raises DataError if ``start``..``stop`` is not within the set."""
    if not 0 <= start <= stop <= manifest.count:
        raise DataError(f"images {start}..{stop} requested, the data set has {manifest.count}")


def image_shape(manifest: Manifest) -> tuple[int, int, int]:
    """(C, H, W) of the stored images."""
    return manifest.image.channels, manifest.image.height, manifest.image.width


def pixel_type(manifest: Manifest) -> type[np.uint8 | np.uint16]:
    """numpy dtype of the stored pixels."""
    return np.uint16 if manifest.image.bits == 16 else np.uint8


def decoded_bytes(manifest: Manifest) -> int:
    """Size of all decoded pixels, in bytes."""
    image = manifest.image
    return manifest.count * image.channels * image.height * image.width * image.bits // 8
