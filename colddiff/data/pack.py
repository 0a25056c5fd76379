"""Packs a source of images into shards and a manifest: idempotent, resumable, committed last."""

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
from colddiff.data.pil_images import Pixels, crop_and_resize, with_channels
from colddiff.data.sources.source import ImageSource, SourceEntry
from colddiff.data.tars import image_members, shard_entry, shard_key, write_tar
from colddiff.errors import DataError, Exists, Missing, SpecError
from colddiff.ports import ImageFormat, Manifest, ShardEntry, Store
from colddiff.spec import digest
from colddiff.types import ProgressCallback

CLAIM = "pack.json"
"""Claim file: present beside the shards while packing, with the settings in use."""

MAX_WORKERS = 16


@dataclass(frozen=True, slots=True)
class PackResult:
    """A complete data set; ``fresh`` is False if it was already packed."""

    manifest: Manifest
    fresh: bool


@dataclass(frozen=True, slots=True)
class _Plan:
    entries: Sequence[SourceEntry]
    image: ImageFormat
    settings: dict[str, Any]
    """JSON-ready; equal settings produce equal bytes."""


def pack(
    source: ImageSource,
    store: Store,
    settings: PackSettings,
    on_progress: ProgressCallback | None = None,
    workers: int | None = None,
) -> PackResult:
    """Pack ``source`` into ``store``: tars of PNG and JSON members, then the manifest.

    Idempotent: repeating it does nothing, and after an interruption it keeps the finished shards.
    ``on_progress`` counts images. ``workers`` is the number of threads (default: one per CPU, at
    most MAX_WORKERS); the resulting bytes do not depend on it.

    Raises:
        SpecError: settings that do not apply to the source, or that differ from those of data
            already packed there.
        DataError: images that are missing, cannot be decoded, or differ in size.
    """
    plan = _make_plan(source, settings)
    done = _finished(store, plan)
    if done is None:
        _claim(store, plan)
        # A concurrent run may have finished, and released its claim, since the first check.
        done = _finished(store, plan, claimed=True)
    if done is not None:
        return PackResult(done, fresh=False)
    try:
        packer = _Packer(source, store, plan, settings.shard_size, on_progress)
        shards = packer.run(workers or min(os.cpu_count() or 1, MAX_WORKERS))
    except DataError:
        # Fixing or removing the bad image changes the set, so these shards would block a retry.
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
    return PackResult(manifest, fresh=True)


def _make_plan(source: ImageSource, settings: PackSettings) -> _Plan:
    entries = selected(source, settings)
    first = source.load(entries[0])
    channels = settings.channels or first.shape[2]
    if settings.bits == 16 and channels != 1:
        raise SpecError(f"{source.uri} holds colour images: bits=16 needs channels=1")
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
        _refuse_other(store, _read_claim(store, plan), plan)
        return
    found = next((item.key for item in store.list() if item.key.endswith(".tar")), None)
    if found is not None and store.size(KEY) is None:
        store.delete(CLAIM)
        raise SpecError(
            f"{store.uri} already holds {found}, which was not packed by colddiff; pack to another "
            f"place, or index it with `colddiff data index {store.uri}`"
        )


def _discard(store: Store) -> None:
    for item in list(store.list("shard-")):
        store.delete(item.key)
    store.delete(CLAIM)


def _read_claim(store: Store, plan: _Plan) -> Any:
    try:
        return json.loads(store.get(CLAIM))
    except Missing:  # the other run finished in the meantime
        return plan.settings
    except ValueError:
        raise DataError(f"{store.uri}/{CLAIM}: not valid JSON; delete it and the shards") from None


def _refuse_other(store: Store, existing: Any, plan: _Plan) -> None:
    if existing == plan.settings:
        return
    existing = existing if isinstance(existing, dict) else {}
    differs = [
        f"{name}: {existing.get(name)!r} there, {wanted!r} here"
        for name, wanted in plan.settings.items()
        if existing.get(name) != wanted and name not in ("image", "images_sha256")
    ]
    raise SpecError(
        f"{store.uri} holds data packed {'with ' if differs else 'from other images'}"
        f"{'; '.join(differs)}; pack to another place, or delete that data first"
    )


class _Packer:
    """Makes shards on several threads; their number and bytes do not depend on how many.

    Threads suffice: reading, decoding and compressing all release the GIL.
    """

    def __init__(
        self,
        source: ImageSource,
        store: Store,
        plan: _Plan,
        shard_size: int,
        on_progress: ProgressCallback | None,
    ) -> None:
        self._source, self._store, self._plan = source, store, plan
        self._ranges = [
            range(start, min(start + shard_size, len(plan.entries)))
            for start in range(0, len(plan.entries), shard_size)
        ]
        self._on_progress = on_progress
        self._done = 0
        self._lock = threading.Lock()
        self._first_failed = len(self._ranges)
        """Number of the first shard that failed; work on later ones is abandoned."""

    def run(self, workers: int) -> list[ShardEntry]:
        """All shards in order; if several images are bad, the error names the first."""
        existing = {item.key for item in self._store.list("shard-")}
        kept = [number for number in self._numbers if shard_key(number) in existing]
        missing = [number for number in self._numbers if shard_key(number) not in existing]
        shards = dict(self._all(self._existing_entry, kept, workers))
        # Reported before the work starts, so that existing shards do not distort the rate.
        self._progress(sum(shard.count for shard in shards.values()))
        shards |= self._all(self._make_shard, missing, workers)
        return [shards[number] for number in self._numbers]

    @property
    def _numbers(self) -> range:
        return range(len(self._ranges))

    def _all(
        self, work: Callable[[int], ShardEntry], numbers: list[int], workers: int
    ) -> dict[int, ShardEntry]:
        with ThreadPoolExecutor(workers, thread_name_prefix="pack") as pool:
            try:
                entries = pool.map(self._recording_failures(work), numbers)
                return dict(zip(numbers, entries, strict=True))
            except BaseException:
                self._first_failed = -1
                pool.shutdown(cancel_futures=True)
                raise

    def _recording_failures(self, work: Callable[[int], ShardEntry]) -> Callable[[int], ShardEntry]:
        """``work``, whose failure cancels later shards; earlier ones go on and may also fail."""

        def recorded(number: int) -> ShardEntry:
            try:
                return work(number)
            except BaseException:
                with self._lock:
                    self._first_failed = min(self._first_failed, number)
                raise

        return recorded

    def _existing_entry(self, number: int) -> ShardEntry:
        # The claim fixes the settings and writes are atomic, so the shard is complete and valid.
        key = shard_key(number)
        return shard_entry(key, len(self._ranges[number]), self._store.get(key))

    def _make_shard(self, number: int) -> ShardEntry:
        key, images = shard_key(number), self._ranges[number]
        data = write_tar(member for n in images for member in self._members(number, n))
        self._store.put(key, data)
        return shard_entry(key, len(images), data)

    def _members(self, shard: int, number: int) -> list[tuple[str, bytes]]:
        if shard > self._first_failed:
            raise CancelledError
        plan, entry = self._plan, self._plan.entries[number]
        pixels = conform_pixels(
            self._source.load(entry), entry, plan.settings["image_size"], plan.image
        )
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


def conform_pixels(
    pixels: Pixels, entry: SourceEntry, image_size: int | None, image: ImageFormat
) -> Pixels:
    """Convert ``pixels`` to the format ``image``; raises DataError naming the entry otherwise."""
    if pixels.dtype == np.uint16 and image.bits == 8:
        raise DataError(f"{entry.name}: is a 16-bit image; use bits=16 to keep its depth")
    pixels = with_channels(pixels, image.channels)
    if image.bits == 16 and pixels.dtype == np.uint8:
        pixels = pixels.astype(np.uint16) * 257
    if image_size is not None:
        return crop_and_resize(pixels, image_size)
    height, width = pixels.shape[:2]
    if (height, width) != (image.height, image.width):
        raise DataError(
            f"{entry.name}: is {width}x{height}, the first image is {image.width}x{image.height}; "
            "set image_size to resize all of them"
        )
    return pixels
