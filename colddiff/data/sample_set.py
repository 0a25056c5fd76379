"""Sample sets: what is committed at a place, whole by its manifest or half-made by listing it.

    plan.json                                          what the images are a function of
    shard-000000.tar  shard-000001.tar ...             PNG and JSON members, named by seed
    records/shard-000000.<count>.<bytes>.<sha256>.json where, when and with what it was made
    statistics/fd_lenet-<weights>/shard-000000.<sha256>.safetensors
    manifest.json                                      a packed data set like any other, last

A record is written before its tar, so that a tar is never without one; the tar is the commit. In a
plain folder of PNG there are no tars, and the record, written last, is the commit.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from colddiff.data.manifest import make_manifest, read_manifest
from colddiff.data.pil_images import decode_image
from colddiff.data.sample_plan import KEY, SamplePlan, read_plan
from colddiff.data.tars import read_tar, shard_key
from colddiff.errors import DataError, Missing
from colddiff.ports import Manifest, ShardEntry, Store

RECORDS = "records/"
NAMED = 5
BLOCK = 1000
"""Shards that are listed at once: one page of an S3 listing."""
_TAR = re.compile(r"shard-(\d{6,})\.tar")
_RECORD = re.compile(r"records/shard-(\d{6,})\.(\d+)\.(\d+)\.([0-9a-f]{64})\.json")


def record_key(number: int, entry: ShardEntry) -> str:
    """Key of the record of shard ``number``: everything a manifest says of it is in its name."""
    stem = shard_key(number).removesuffix(".tar")
    return f"{RECORDS}{stem}.{entry.count}.{entry.bytes}.{entry.sha256}.json"


def stored_shards(store: Store, writer: str, block: int | None = None) -> dict[int, ShardEntry]:
    """The committed shards of one block of ``BLOCK`` numbers (None: all), found by listing alone.

    Only where two actors on unlike machines made different bytes is a tar read, to see whose it is.
    """
    # Six digits, three of which the block fixes: one prefix, one page.
    start = "shard-" if block is None else f"shard-{block:03d}"
    records: dict[int, list[ShardEntry]] = {}
    for item in store.list(f"{RECORDS}{start}"):
        if match := _RECORD.fullmatch(item.key):
            number, count, size = (int(match.group(i)) for i in (1, 2, 3))
            entry = ShardEntry(shard_key(number), count, size, match.group(4))
            records.setdefault(number, []).append(entry)
    if writer == "folder":
        return {n: max(found, key=lambda entry: entry.count) for n, found in records.items()}
    found: dict[int, ShardEntry] = {}
    for item in store.list(start):
        match = _TAR.fullmatch(item.key)
        if match is None:
            continue
        number = int(match.group(1))
        fitting = [entry for entry in records.get(number, ()) if entry.bytes == item.size]
        if len(fitting) > 1:
            sha256 = hashlib.sha256(store.get(item.key)).hexdigest()
            fitting = [entry for entry in fitting if entry.sha256 == sha256]
        if fitting:
            found[number] = fitting[0]
    return found


def num_blocks(num_shards: int) -> int:
    """How many blocks the first ``num_shards`` numbers lie in."""
    return -(-num_shards // BLOCK)


def entries_in_order(
    store: Store, plan: SamplePlan, num_samples: int
) -> Iterator[tuple[int, ShardEntry]]:
    """(number, entry) of every committed shard of the first ``num_samples`` images, by blocks."""
    num_shards = plan.num_shards(num_samples)
    for block in range(num_blocks(num_shards)):
        found = stored_shards(store, plan.writer, block)
        for number in sorted(found):
            if number < num_shards:
                yield number, found[number]


def manifest_of(plan: SamplePlan, entries: list[ShardEntry]) -> Manifest:
    """Samples as a packed data set."""
    return make_manifest(
        plan.image,
        entries,
        source=f"colddiff generate, plan {plan.digest[:12]}",
        settings={"plan": plan.digest},
    )


def sample_manifest(store: Store, *, partial: bool = False) -> Manifest:
    """What a sample set holds: its manifest, or with ``partial`` whatever is committed by now.

    Raises:
        DataError: no samples, a plain folder of PNG, a set that is not finished (without
            ``partial``), or one where no shard is committed yet.
    """
    plan = read_plan(store)
    if plan is None:
        raise DataError(
            f"{store.uri}: no {KEY}, so no samples are there; give the OUT of a generate job"
        )
    if plan.writer == "folder":
        raise DataError(
            f"{store.uri}: is a plain folder of PNG; pack it with `colddiff data pack "
            f"folder:{store.uri} --out URI`"
        )
    if not partial and store.size("manifest.json") is not None:
        return read_manifest(store)
    found = stored_shards(store, plan.writer)
    if not partial:
        count = sum(entry.count for entry in found.values())
        holes = sorted(set(range(max(found, default=0))) - set(found))
        before = f", not among them {_numbers(holes)}" if holes else ""
        raise DataError(
            f"{store.uri}: its samples are not all there yet, {count} images in {len(found)} "
            f"shards of {plan.shard_size}{before}; wait for the job, submit it again, or use what "
            "is there with partial=true"
        )
    if not found:
        raise DataError(f"{store.uri}: no shard is committed yet; wait for the first one")
    return manifest_of(plan, [found[number] for number in sorted(found)])


def _numbers(shards: list[int]) -> str:
    shown = ", ".join(map(str, shards[:NAMED]))
    return f"shard {shown}" + (f" and {len(shards) - NAMED} more" if len(shards) > NAMED else "")


def png_members(
    store: Store, plan: SamplePlan, number: int, seeds: range
) -> list[tuple[str, bytes]]:
    """(name, content) of the PNG files of committed images; DataError where one is not there."""
    names = [f"{seed:012d}.png" for seed in seeds]
    try:
        if plan.writer == "folder":
            return [(name, store.get(name)) for name in names]
        held = dict(read_tar(store.get(plan.task(number, number * plan.shard_size + 1).key)))
        return [(name, held[name]) for name in names]
    except (Missing, KeyError) as error:
        raise DataError(f"{store.uri}: an image that was committed is gone ({error})") from None


def decoded(data: bytes, where: str) -> NDArray[np.uint8]:
    """One PNG of a sample set as uint8 [C, H, W]."""
    return np.asarray(decode_image(data, where), np.uint8).transpose(2, 0, 1)
