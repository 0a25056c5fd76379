"""Feature statistics of samples: computed for each shard as it is made, then merged exactly."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator

import numpy as np
import torch
from numpy.typing import NDArray

from colddiff.data.sample_plan import SamplePlan, ShardTask
from colddiff.data.sample_set import decode_png, entries_in_order, png_members
from colddiff.data.tars import shard_key
from colddiff.errors import DataError, Missing
from colddiff.evaluation.metrics import FeatureStatistics
from colddiff.ports import FeatureExtractor, ShardSource, Store

BATCH = 64
_KEY = re.compile(r"shard-(\d{6,})\.([0-9a-f]{64})\.safetensors")


def folder_of(extractor: FeatureExtractor) -> str:
    """Folder of an extractor's statistics below the samples; one for each set of weights."""
    return f"statistics/{extractor.metric}-{extractor.weights_sha256[:16]}/"


def statistics_key(folder: str, number: int, sha256: str) -> str:
    """Key of the statistics of the shard with that number and hash."""
    return f"{folder}{shard_key(number).removesuffix('.tar')}.{sha256}.safetensors"


def shards_with_statistics(
    store: Store, folders: Iterable[str], block: int
) -> set[tuple[int, str]]:
    """(number, sha256) of the shards of one block that have statistics in all ``folders``."""
    found: set[tuple[int, str]] | None = None
    for folder in folders:
        listed = set()
        for item in store.list(f"{folder}shard-{block:03d}"):
            if match := _KEY.fullmatch(item.key.removeprefix(folder)):
                listed.add((int(match.group(1)), match.group(2)))
        found = listed if found is None else found & listed
    return found or set()


def statistics_of(extractor: FeatureExtractor, pixels: NDArray[np.uint8]) -> FeatureStatistics:
    """Feature statistics of images, uint8 [N, C, H, W]."""
    return FeatureStatistics.of(extractor.features(torch.from_numpy(np.ascontiguousarray(pixels))))


def merge_statistics(parts: Iterable[FeatureStatistics]) -> FeatureStatistics:
    """The statistics over all ``parts``, merged in the order given; at least one."""
    total: FeatureStatistics | None = None
    for part in parts:
        total = part if total is None else total.merge(part)
    assert total is not None
    return total


def write_shard_statistics(
    store: Store, plan: SamplePlan, task: ShardTask, extractors: Iterable[FeatureExtractor]
) -> int:
    """Writes the statistics of a shard that was made without; returns its images' size, bytes."""
    members = png_members(store, plan, task.number, task.seeds)
    pixels = np.stack([decode_png(data, f"{store.uri}: {name}") for name, data in members])
    for extractor in extractors:
        # In the batches it was made in, so that the sums are bit-equal to those made with it.
        parts = (
            statistics_of(extractor, pixels[row : row + plan.batch_size])
            for row in range(0, len(pixels), plan.batch_size)
        )
        key = statistics_key(folder_of(extractor), task.number, task.measure)
        store.put(key, merge_statistics(parts).to_bytes())
    return sum(len(data) for _, data in members)


def merged_statistics(
    store: Store, plan: SamplePlan, num_samples: int, extractor: FeatureExtractor
) -> FeatureStatistics:
    """Feature statistics of a whole set, merged shard by shard in the order of the seeds.

    Stored beside those of the shards. Raises DataError if a shard's are missing.
    """
    folder = folder_of(extractor)
    keys = (
        statistics_key(folder, number, entry.sha256)
        for number, entry in entries_in_order(store, plan, num_samples)
    )
    try:
        total = merge_statistics(FeatureStatistics.from_bytes(store.get(key)) for key in keys)
    except Missing as error:
        raise DataError(f"{error}; submit the same job again to compute it") from None
    store.put(f"{folder}all.safetensors", total.to_bytes())
    return total


def reference_statistics(
    source: ShardSource,
    extractor: FeatureExtractor,
    on_batch: Callable[[int, int], None] = lambda done, total: None,
) -> FeatureStatistics:
    """Feature statistics of all images of a packed set, in 8 bit."""
    count = source.manifest.count

    def parts() -> Iterator[FeatureStatistics]:
        for start in range(0, count, BATCH):
            images = source.images(start, min(start + BATCH, count))
            eight_bit = images if images.dtype == np.uint8 else np.rint(images / 257)
            yield statistics_of(extractor, eight_bit.astype(np.uint8))
            on_batch(min(start + BATCH, count), count)

    return merge_statistics(parts())
