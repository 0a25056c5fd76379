"""What follows once the shards exist: the manifest, the first images, the report of failures."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from colddiff.data.manifest import KEY, read_manifest
from colddiff.data.manifest import write_manifest as write
from colddiff.data.sample_plan import SamplePlan, ShardTask
from colddiff.data.sample_set import decode_png, entries_in_order, manifest_of, png_members
from colddiff.errors import DataError
from colddiff.jobs.work_queue import DeadLetter
from colddiff.ports import Store

NAMED = 5


def write_manifest(store: Store, plan: SamplePlan, num_samples: int) -> str | None:
    """Writes ``manifest.json`` of a complete set, as its last object; returns its digest.

    A stored manifest of more images is kept. Returns None for a plain folder of PNG files, which
    is not a packed data set.

    Raises DataError if a shard is missing.
    """
    entries = []
    for expected, (number, entry) in enumerate(entries_in_order(store, plan, num_samples)):
        if number != expected or entry.count < plan.task(number, num_samples).count:
            break
        entries.append(entry)
    if len(entries) < plan.num_shards(num_samples):
        raise DataError(
            f"{store.uri}: shard {len(entries)} was deleted after it was committed; submit the "
            "same job again to make it again"
        )
    if plan.writer == "folder":
        return None
    manifest = manifest_of(plan, entries)
    try:
        stored = read_manifest(store) if store.size(KEY) is not None else None
    except DataError:
        stored = None
    if stored is not None and stored.count >= manifest.count:
        return stored.digest
    write(store, manifest)
    return manifest.digest


def first_images(store: Store, plan: SamplePlan, count: int) -> NDArray[np.uint8]:
    """The first ``count`` images, uint8 [N, C, H, W]; raises DataError if one is missing."""
    images: list[NDArray[np.uint8]] = []
    for number in range(plan.num_shards(count)):
        task = plan.task(number, count)
        for name, data in png_members(store, plan, number, task.seeds):
            images.append(decode_png(data, f"{store.uri}: {name}"))
    return np.stack(images)


def describe_dead(store: Store, dead: Sequence[DeadLetter[ShardTask]], num_committed: int) -> str:
    """One line: which seeds failed, why, and how to retry them."""
    dead = sorted(dead, key=lambda letter: letter.task.number)
    named = [
        f"{letter.task.key} (seeds {letter.task.seeds[0]}..{letter.task.seeds[-1]}: "
        f"{letter.message})"
        for letter in dead[:NAMED]
    ]
    more = f" and {len(dead) - NAMED} more" if len(dead) > NAMED else ""
    images = sum(letter.task.count for letter in dead)
    return (
        f"{images} images failed, in {', '.join(named)}{more}; the other {num_committed} are in "
        f"{store.uri}; submit the same job again to retry the failed ones"
    )
