"""What is made of the shards once they are there: the manifest, first images, a verdict."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from colddiff.data.manifest import KEY, manifest_bytes, read_manifest
from colddiff.data.sample_plan import SamplePlan, ShardTask
from colddiff.data.sample_set import decode_png, entries_in_order, manifest_of, png_members
from colddiff.errors import DataError
from colddiff.jobs.work_queue import DeadLetter
from colddiff.ports import Store

NAMED = 5


def write_manifest(store: Store, plan: SamplePlan, num_samples: int) -> str | None:
    """Writes ``manifest.json`` of a finished size, last of all, and returns its digest.

    A manifest of more images stays. None for a plain folder of PNG, which is no packed data set.

    Raises DataError where a shard is missing after all.
    """
    entries = []
    for expected, (number, entry) in enumerate(entries_in_order(store, plan, num_samples)):
        if number != expected or entry.count < plan.task(number, num_samples).count:
            break
        entries.append(entry)
    if len(entries) < plan.num_shards(num_samples):
        raise DataError(
            f"{store.uri}: shard {len(entries)} is gone since it was committed; submit the same "
            "job again to make it once more"
        )
    if plan.writer == "folder":
        return None
    manifest = manifest_of(plan, entries)
    try:
        there = read_manifest(store) if store.size(KEY) is not None else None
    except DataError:
        there = None
    if there is not None and there.count >= manifest.count:
        return there.digest
    store.put(KEY, manifest_bytes(manifest))
    return manifest.digest


def first_images(store: Store, plan: SamplePlan, count: int) -> NDArray[np.uint8]:
    """The first ``count`` images, uint8 [N, C, H, W]; raises DataError where one is not there."""
    images: list[NDArray[np.uint8]] = []
    for number in range(plan.num_shards(count)):
        task = plan.task(number, count)
        for name, data in png_members(store, plan, number, task.seeds):
            images.append(decode_png(data, f"{store.uri}: {name}"))
    return np.stack(images)


def describe_dead(store: Store, dead: Sequence[DeadLetter[ShardTask]], num_committed: int) -> str:
    """Which seeds are missing, why, and how to try them again."""
    dead = sorted(dead, key=lambda letter: letter.task.number)
    named = [
        f"{letter.task.key} (seeds {letter.task.seeds[0]}..{letter.task.seeds[-1]}: "
        f"{letter.message})"
        for letter in dead[:NAMED]
    ]
    more = f" and {len(dead) - NAMED} more" if len(dead) > NAMED else ""
    images = sum(letter.task.count for letter in dead)
    return (
        f"{images} images were given up, in {', '.join(named)}{more}; the other {num_committed} "
        f"are in {store.uri}; submit the same job again to try those once more"
    )
