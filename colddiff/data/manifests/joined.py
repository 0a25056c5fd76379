"""Joins packed sets in the folders of a place to one set, whose manifest names theirs as pages."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from colddiff.data.manifests.paged import FOLDER, Page, index_bytes, page_of
from colddiff.data.manifests.plain import KEY, DigestOfShards, parse_manifest
from colddiff.errors import DataError, Missing, SpecError
from colddiff.ports import ImageFormat, Manifest, Store
from colddiff.types import ProgressCallback

READERS = 16
AT_ONCE = 256
"""Parts whose shards are in memory together."""


@dataclass(frozen=True, slots=True)
class _Part:
    name: str
    page: Page
    image: ImageFormat
    classes: tuple[str, ...]
    hashes: tuple[tuple[int, str], ...]


def join_sets(store: Store, on_progress: ProgressCallback | None = None) -> bytes:
    """``manifest.json`` of all packed sets in the folders below ``store``.

    The parts follow each other by name; they stay packed sets of their own. ``on_progress`` counts
    parts. Nothing is written.

    Raises:
        DataError: no parts, a folder without a manifest, or parts whose images or classes differ.
        SpecError: the folders are the splits of a source.
    """
    names = [name for name in store.folders("") if name != FOLDER]
    if not names:
        raise DataError(
            f"{store.uri}: has no folders; pack each part to one of its own, `colddiff data pack "
            f"SOURCE --out {store.uri}/part-0001`, and join them then"
        )
    if {"train", "test"} <= set(names):
        raise SpecError(
            f"{store.uri} holds the splits train and test of a source, which stay apart: join the "
            "parts of each split in a folder of its own"
        )
    pages: list[Page] = []
    first: _Part | None = None
    for part in _parts(store, names):
        if first is None:
            first, hashed = part, DigestOfShards(part.image)
        _refuse_other(store, first, part)
        for count, sha256 in part.hashes:
            hashed.add(count, sha256)
        pages.append(part.page)
        if on_progress is not None:
            on_progress(len(pages), len(names))
    assert first is not None
    manifest = Manifest(
        count=sum(sum(page.counts) for page in pages),
        image=first.image,
        shards=(),
        classes=first.classes,
        source=f"joined:{store.uri}",
        settings={"source": "join"},
        digest=hashed.hexdigest(),
    )
    return index_bytes(manifest, pages)


def _parts(store: Store, names: list[str]) -> Iterator[_Part]:
    with ThreadPoolExecutor(READERS) as pool:
        for start in range(0, len(names), AT_ONCE):
            yield from pool.map(lambda name: _part(store, name), names[start : start + AT_ONCE])


def _part(store: Store, name: str) -> _Part:
    key = f"{name}/{KEY}"
    try:
        data = store.get(key)
    except Missing:
        raise DataError(
            f"{store.uri}/{name}: has no {KEY}, so its packing did not finish: run the same "
            "command again, or move the folder away"
        ) from None
    found = parse_manifest(data, f"{store.uri}/{key}")
    page = page_of(key, name, data, found.shards)
    hashes = tuple((shard.count, shard.sha256) for shard in found.shards)
    return _Part(name, page, found.image, found.classes, hashes)


def _refuse_other(store: Store, first: _Part, part: _Part) -> None:
    if part.image != first.image:
        raise DataError(
            f"{store.uri}/{part.name}: its images are {part.image}, those of {first.name} "
            f"{first.image}; pack all parts with the same settings"
        )
    if part.classes != first.classes:
        raise DataError(
            f"{store.uri}/{part.name}: its classes are not those of {first.name}, so that a label "
            "would mean two things; pack all parts with the same classes"
        )
