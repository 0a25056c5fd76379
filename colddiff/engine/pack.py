"""Packing a source of images into shards and a manifest: repeatable, complete or invisible."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from colddiff.engine.selection import PackSettings, selected
from colddiff.errors import DataError, Exists, Missing, SpecError
from colddiff.ports import ImageFormat, Manifest, ShardEntry, Store
from colddiff.shards.images import Pixels, fitted, with_channels
from colddiff.shards.manifest import KEY, make_manifest, manifest_bytes, read_manifest
from colddiff.shards.source import ImageSource, SourceEntry
from colddiff.shards.tars import image_members, shard_entry, shard_key, write_tar
from colddiff.spec import digest

CLAIM = "pack.json"
"""Stands beside the shards while they are made, with the settings they are made by."""

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
) -> Packed:
    """Packs ``source`` into ``store``: tars of PNG and JSON members, and last the manifest.

    A second run finds it done; one after a kill keeps the shards that were made. ``on_progress``
    gets images done and in all.

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
        shards = _shards(source, store, plan, settings.shard_size, on_progress)
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


def _shards(
    source: ImageSource, store: Store, plan: _Plan, shard_size: int, on_progress: Progress | None
) -> list[ShardEntry]:
    shards: list[ShardEntry] = []
    for start in range(0, len(plan.entries), shard_size):
        part = plan.entries[start : start + shard_size]
        key = shard_key(len(shards))
        try:
            # Under the claim of these settings: writes are atomic, so it is whole and ours.
            data = store.get(key)
        except Missing:
            members = (
                member
                for number, entry in enumerate(part, start)
                for member in _members(source, entry, number, plan.image, on_progress, plan)
            )
            data = write_tar(members)
            store.put(key, data)
        shards.append(shard_entry(key, len(part), data))
        if on_progress is not None:
            on_progress(start + len(part), len(plan.entries))
    return shards


def _members(
    source: ImageSource,
    entry: SourceEntry,
    number: int,
    image: ImageFormat,
    on_progress: Progress | None,
    plan: _Plan,
) -> list[tuple[str, bytes]]:
    pixels = prepared(source.load(entry), entry, plan.settings["image_size"], image)
    if on_progress is not None and number % 100 == 0:
        on_progress(number, len(plan.entries))
    described: dict[str, object] = {"source": entry.name}
    if entry.label is not None:
        described["label"] = entry.label
    return image_members(f"{number:012d}", pixels, described)


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
