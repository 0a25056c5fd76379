"""Sample sets: complete ones are read by their manifest, unfinished ones by listing the store.

    plan.json                                          everything the images depend on
    shard-000000.tar  shard-000001.tar ...             PNG and JSON members, named by seed
    records/shard-000000.<count>.<bytes>.<sha256>.json where, when and with what it was made
    statistics/fd_lenet-<weights>/shard-000000.<sha256>.safetensors
    manifest.json                                      written last; as in any packed data set

A record is written before its tar, so that every tar has one; the tar is the commit. A plain folder
of PNG files has no tars; there the record, written last, is the commit.
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
"""Shards listed per request: one page of an S3 listing."""
_TAR = re.compile(r"shard-(\d{6,})\.tar")
_RECORD = re.compile(r"records/shard-(\d{6,})\.(\d+)\.(\d+)\.([0-9a-f]{64})\.json")


def record_key(number: int, entry: ShardEntry) -> str:
    """Key of the record of shard ``number``; it encodes the shard's whole manifest entry."""
    stem = shard_key(number).removesuffix(".tar")
    return f"{RECORDS}{stem}.{entry.count}.{entry.bytes}.{entry.sha256}.json"


def stored_shards(store: Store, writer: str, block: int | None = None) -> dict[int, ShardEntry]:
    """The committed shards of one block of ``BLOCK`` numbers (None: all), found by listing alone.

    A tar is read only if two actors on different hardware produced different bytes of equal size,
    to find out which record it belongs to.
    """
    # Of the six digits the block fixes three: one prefix, one page.
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
        matching = [entry for entry in records.get(number, ()) if entry.bytes == item.size]
        if len(matching) > 1:
            sha256 = hashlib.sha256(store.get(item.key)).hexdigest()
            matching = [entry for entry in matching if entry.sha256 == sha256]
        if matching:
            found[number] = matching[0]
    return found


def num_blocks(num_shards: int) -> int:
    """Number of blocks that the first ``num_shards`` shards span."""
    return -(-num_shards // BLOCK)


def entries_in_order(
    store: Store, plan: SamplePlan, num_samples: int
) -> Iterator[tuple[int, ShardEntry]]:
    """(number, entry) of each committed shard of the first ``num_samples`` images, in order."""
    num_shards = plan.num_shards(num_samples)
    for block in range(num_blocks(num_shards)):
        found = stored_shards(store, plan.writer, block)
        for number in sorted(found):
            if number < num_shards:
                yield number, found[number]


def manifest_of(plan: SamplePlan, entries: list[ShardEntry]) -> Manifest:
    """The manifest of a sample set with these shards."""
    return make_manifest(
        plan.image,
        entries,
        source=f"colddiff generate, plan {plan.digest[:12]}",
        settings={"plan": plan.digest},
    )


def sample_manifest(store: Store, *, partial: bool = False) -> Manifest:
    """The manifest of a sample set; with ``partial``, of the shards committed so far.

    Raises:
        DataError: no samples, a plain folder of PNG files, an unfinished set (unless ``partial``),
            or no committed shard yet.
    """
    plan = read_plan(store)
    if plan is None:
        raise DataError(
            f"{store.uri}: no {KEY}, so this is not a sample set; use the OUT of a generate job"
        )
    if plan.writer == "folder":
        raise DataError(
            f"{store.uri}: a plain folder of PNG files; pack it with `colddiff data pack "
            f"folder:{store.uri} --out URI`"
        )
    if not partial and store.size("manifest.json") is not None:
        return read_manifest(store)
    found = stored_shards(store, plan.writer)
    if not partial:
        count = sum(entry.count for entry in found.values())
        holes = sorted(set(range(max(found, default=0))) - set(found))
        missing = f", missing {_numbers(holes)}" if holes else ""
        raise DataError(
            f"{store.uri}: the sample set is unfinished, {count} images in {len(found)} shards of "
            f"{plan.shard_size}{missing}; wait for the job, submit it again, or use the committed "
            "shards with partial=true"
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
    """(name, content) of the PNG files of committed images; DataError if one is missing."""
    names = [f"{seed:012d}.png" for seed in seeds]
    try:
        if plan.writer == "folder":
            return [(name, store.get(name)) for name in names]
        held = dict(read_tar(store.get(plan.task(number, number * plan.shard_size + 1).key)))
        return [(name, held[name]) for name in names]
    except (Missing, KeyError) as error:
        raise DataError(f"{store.uri}: a committed image is missing ({error})") from None


def decode_png(data: bytes, where: str) -> NDArray[np.uint8]:
    """Decode one PNG of a sample set to uint8 [C, H, W]."""
    return np.asarray(decode_image(data, where), np.uint8).transpose(2, 0, 1)
