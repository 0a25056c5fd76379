"""Packing a source of images into shards and a manifest: repeatable, complete or invisible."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from colddiff.data.manifest import KEY, make_manifest, manifest_bytes, read_manifest
from colddiff.data.pack_settings import PackSettings, selected
from colddiff.data.pil_images import Pixels, fitted, with_channels
from colddiff.data.sources.source import ImageSource, SourceEntry
from colddiff.data.tars import image_members, shard_entry, shard_key, write_tar
from colddiff.errors import DataError, Exists, Missing, SpecError
from colddiff.ports import ImageFormat, Manifest, ShardEntry, Store
from colddiff.spec import digest

CLAIM = "pack.json"
"""Stands beside the shards while they are made, with the settings they are made by."""

MAX_WORKERS = 16

Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Packed:
    """A complete data set; ``fresh`` is False where it had been packed before."""

    manifest: Manifest
    fresh: bool


@dataclass(frozen=True, slots=True)
class _Plan:
    entries: Sequence[SourceEntry]
    image: ImageFormat
    settings: dict[str, Any]
    """JSON-ready: equal settings make equal bytes."""


def pack(
    source: ImageSource,
    store: Store,
    settings: PackSettings,
    on_progress: Progress | None = None,
    workers: int | None = None,
) -> Packed:
    """Packs ``source`` into ``store``: tars of PNG and JSON members, and last the manifest.

    A second run finds it done; one after a kill keeps the shards that were made. ``on_progress``
    gets images done and in all. ``workers`` threads work at once (else one per CPU, at most
    MAX_WORKERS); the bytes do not depend on how many.

    Raises:
        SpecError: settings that do not suit the source, or other ones at the same place.
        DataError: images that are missing, do not decode, or differ in size.
    """
    plan = _planned(source, settings)
    done = _finished(store, plan)
    if done is None:
        _claim(store, plan)
        # Another run may have finished, and given up its claim, since we looked.
        done = _finished(store, plan, claimed=True)
    if done is not None:
        return Packed(done, fresh=False)
    try:
        packing = _Packing(source, store, plan, settings.shard_size, on_progress)
        shards = packing.run(workers or min(os.cpu_count() or 1, MAX_WORKERS))
    except DataError:
        # Whoever repairs or removes the bad image packs other images: nothing may be in the way.
        _discard(store)
        raise
    manifest = make_manifest(
        plan.image, shards, classes=source.classes, source=source.uri, settings=plan.settings
    )
    try:
        store.put_new(KEY, manifest_bytes(manifest))
    except Exists:
        _finished(store, plan)
    store.delete(CLAIM)
    return Packed(manifest, fresh=True)


def _planned(source: ImageSource, settings: PackSettings) -> _Plan:
    entries = selected(source, settings)
    first = source.load(entries[0])
    channels = settings.channels or first.shape[2]
    if settings.bits == 16 and channels != 1:
        raise SpecError(f"{source.uri} holds colour images: with bits=16 say channels=1")
    size = settings.image_size
    height, width = (size, size) if size else first.shape[:2]
    image = ImageFormat(channels, height, width, settings.bits, settings.range)
    content = [[entry.name, entry.label, entry.size] for entry in entries]
    return _Plan(
        entries,
        image,
        {
            "source": source.uri.partition(":")[0],
            **settings.to_dict(),
            "image": json.loads(json.dumps(asdict(image))),
            "images_sha256": digest(content),
        },
    )


def _finished(store: Store, plan: _Plan, claimed: bool = False) -> Manifest | None:
    if store.size(KEY) is None:
        return None
    if claimed:
        store.delete(CLAIM)
    manifest = read_manifest(store)
    _refuse_other(store, manifest.settings, plan)
    return manifest


def _claim(store: Store, plan: _Plan) -> None:
    try:
        store.put_new(CLAIM, json.dumps(plan.settings, indent=1).encode())
    except Exists:
        _refuse_other(store, _claimed(store, plan), plan)
        return
    found = next((item.key for item in store.list() if item.key.endswith(".tar")), None)
    if found is not None and store.size(KEY) is None:
        store.delete(CLAIM)
        raise SpecError(
            f"{store.uri} already holds {found}, which is none of ours: pack to another place, or "
            f"index it with `colddiff data index {store.uri}`"
        )


def _discard(store: Store) -> None:
    for item in list(store.list("shard-")):
        store.delete(item.key)
    store.delete(CLAIM)


def _claimed(store: Store, plan: _Plan) -> Any:
    try:
        return json.loads(store.get(CLAIM))
    except Missing:  # the other run has finished meanwhile
        return plan.settings
    except ValueError:
        raise DataError(f"{store.uri}/{CLAIM}: is not JSON; delete it and the shards") from None


def _refuse_other(store: Store, there: Any, plan: _Plan) -> None:
    if there == plan.settings:
        return
    there = there if isinstance(there, dict) else {}
    differs = [
        f"{name} {there.get(name)!r} and not {wanted!r}"
        for name, wanted in plan.settings.items()
        if there.get(name) != wanted and name not in ("image", "images_sha256")
    ]
    raise SpecError(
        f"{store.uri} holds data packed {'with ' if differs else 'from other images'}"
        f"{', '.join(differs)}; pack to another place, or delete that one first"
    )


class _Packing:
    """Shards made by several threads at once: which ones there are, and their bytes, stay the same.

    Reading, decoding and compressing all let other threads run meanwhile.
    """

    def __init__(
        self,
        source: ImageSource,
        store: Store,
        plan: _Plan,
        shard_size: int,
        on_progress: Progress | None,
    ) -> None:
        self._source, self._store, self._plan = source, store, plan
        self._parts = [
            range(start, min(start + shard_size, len(plan.entries)))
            for start in range(0, len(plan.entries), shard_size)
        ]
        self._on_progress = on_progress
        self._done = 0
        self._lock = threading.Lock()
        self._bad = len(self._parts)
        """Number of the first shard that failed; those after it are not wanted any more."""

    def run(self, workers: int) -> list[ShardEntry]:
        """All shards in their order; of several bad images the first is named."""
        there = {item.key for item in self._store.list("shard-")}
        kept = [number for number in self._numbers if shard_key(number) in there]
        made = [number for number in self._numbers if shard_key(number) not in there]
        shards = dict(self._all(self._kept, kept, workers))
        # Told before the work begins: what was there already says nothing of how long it takes.
        self._progress(sum(shard.count for shard in shards.values()))
        shards |= self._all(self._made, made, workers)
        return [shards[number] for number in self._numbers]

    @property
    def _numbers(self) -> range:
        return range(len(self._parts))

    def _all(
        self, work: Callable[[int], ShardEntry], numbers: list[int], workers: int
    ) -> dict[int, ShardEntry]:
        with ThreadPoolExecutor(workers, thread_name_prefix="pack") as pool:
            try:
                return dict(zip(numbers, pool.map(self._minded(work), numbers), strict=True))
            except BaseException:
                self._bad = -1
                pool.shutdown(cancel_futures=True)
                raise

    def _minded(self, work: Callable[[int], ShardEntry]) -> Callable[[int], ShardEntry]:
        """``work``, whose failure ends the shards after it; those before it may fail as well."""

        def minded(number: int) -> ShardEntry:
            try:
                return work(number)
            except BaseException:
                with self._lock:
                    self._bad = min(self._bad, number)
                raise

        return minded

    def _kept(self, number: int) -> ShardEntry:
        # Under the claim of these settings: writes are atomic, so it is whole and ours.
        key = shard_key(number)
        return shard_entry(key, len(self._parts[number]), self._store.get(key))

    def _made(self, number: int) -> ShardEntry:
        key, part = shard_key(number), self._parts[number]
        data = write_tar(member for n in part for member in self._members(number, n))
        self._store.put(key, data)
        return shard_entry(key, len(part), data)

    def _members(self, shard: int, number: int) -> list[tuple[str, bytes]]:
        if shard > self._bad:
            raise CancelledError
        plan, entry = self._plan, self._plan.entries[number]
        pixels = prepared(self._source.load(entry), entry, plan.settings["image_size"], plan.image)
        described: dict[str, object] = {"source": entry.name}
        if entry.label is not None:
            described["label"] = entry.label
        members = image_members(f"{number:012d}", pixels, described)
        self._progress(1)
        return members

    def _progress(self, more: int) -> None:
        with self._lock:
            self._done += more
            if self._on_progress is not None and more:
                self._on_progress(self._done, len(self._plan.entries))


def prepared(
    pixels: Pixels, entry: SourceEntry, image_size: int | None, image: ImageFormat
) -> Pixels:
    """``pixels`` as ``image`` says; raises DataError naming the entry where they cannot be."""
    if pixels.dtype == np.uint16 and image.bits == 8:
        raise DataError(f"{entry.name}: is a 16-bit image; keep its depth with bits=16")
    pixels = with_channels(pixels, image.channels)
    if image.bits == 16 and pixels.dtype == np.uint8:
        pixels = pixels.astype(np.uint16) * 257
    if image_size is not None:
        return fitted(pixels, image_size)
    height, width = pixels.shape[:2]
    if (height, width) != (image.height, image.width):
        raise DataError(
            f"{entry.name}: is {width}x{height}, the images before it are "
            f"{image.width}x{image.height}; give an image_size to make them equal"
        )
    return pixels
