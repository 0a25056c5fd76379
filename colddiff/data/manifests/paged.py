"""A manifest in pages: ``manifest.json`` names the files that list the shards, read when needed.

    manifest.json                          the set, the images in each shard, its pages with sha256
    pages/000000-<16 hex of sha256>.json   a manifest of the next 1,000 shards, as in a small set
    part-0001/manifest.json                or: a packed set of its own, part of this one

To open a set of a million shards takes one file, and a reader needs the pages of the shards that
it reads. The digest is that of the same shards in one file.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from typing import Annotated, Any, Literal, Self, overload

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from colddiff import __version__
from colddiff.data.manifests.plain import (
    KEY,
    About,
    format_of,
    make_manifest,
    manifest_bytes,
    parse_manifest,
)
from colddiff.errors import DataError, Missing, SpecError
from colddiff.ports import Manifest, ShardEntry, Store
from colddiff.spec import Spec, parse

FORMAT = "colddiff-shards/2"
FOLDER = "pages"
PER_PAGE = 1000
MOST_IN_ONE = 10_000
"""Shards of a set whose manifest is one file."""
MOST_KEPT = 2**20
"""Shards whose entries a process keeps, of about 70 bytes each."""
WRITERS = 16


class Page(Spec):
    """A file that lists shards, and how many images each of them has."""

    key: Annotated[str, Field(min_length=1)]
    folder: str = ""
    """Where its shards' keys begin; empty for the folder of the set."""
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    bytes: Annotated[int, Field(ge=1, le=2**63 - 1)]
    """Of its shards."""
    counts: Annotated[tuple[Annotated[int, Field(ge=1, le=10**9)], ...], Field(min_length=1)]


class _Index(About):
    format: Literal["colddiff-shards/2"]
    colddiff: str = ""
    digest: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    pages: Annotated[tuple[Page, ...], Field(min_length=1)]

    @model_validator(mode="after")
    def _adds_up(self) -> Self:
        total = sum(sum(page.counts) for page in self.pages)
        if total != self.count:
            raise SpecError([("count", f"is {self.count}, but the pages hold {total} images")])
        if len({page.key for page in self.pages}) < len(self.pages):
            raise SpecError([("pages", "one of them is listed twice")])
        return self


class _Entries:
    """The entries of a page, in a few arrays instead of an object for each."""

    def __init__(self, folder: str, shards: Sequence[ShardEntry]) -> None:
        self._folder = f"{folder}/" if folder else ""
        self._keys = np.array([shard.key.encode() for shard in shards])
        self._sha256 = b"".join(bytes.fromhex(shard.sha256) for shard in shards)
        self._numbers = np.array([(shard.count, shard.bytes) for shard in shards], np.int64)

    def __len__(self) -> int:
        return len(self._keys)

    def __getitem__(self, n: int) -> ShardEntry:
        count, size = self._numbers[n].tolist()
        sha256 = self._sha256[32 * n : 32 * n + 32].hex()
        return ShardEntry(f"{self._folder}{self._keys[n].decode()}", count, size, sha256)


class PagedShards(Sequence[ShardEntry]):
    """The shards of a set in pages; a page is read when one of its shards is asked for.

    Raises DataError then if the page is missing or is not the one that the manifest names. Safe to
    share between threads.
    """

    def __init__(self, store: Store, pages: Sequence[Page]) -> None:
        self._store = store
        self._pages = [(page.key, page.folder, page.sha256) for page in pages]
        self.counts = np.concatenate([np.array(page.counts, np.int64) for page in pages])
        """Images of each shard, int64 [shards]."""
        self.total_bytes = sum(page.bytes for page in pages)
        self._starts = np.cumsum([0, *(len(page.counts) for page in pages)])
        self._kept: OrderedDict[int, _Entries] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self.counts)

    @overload
    def __getitem__(self, item: int) -> ShardEntry: ...
    @overload
    def __getitem__(self, item: slice) -> Sequence[ShardEntry]: ...
    def __getitem__(self, item: int | slice) -> ShardEntry | Sequence[ShardEntry]:
        if isinstance(item, slice):
            return [self[n] for n in range(*item.indices(len(self)))]
        if not -len(self) <= item < len(self):
            raise IndexError(item)
        number = item % len(self)
        page = int(np.searchsorted(self._starts, number, side="right")) - 1
        return self._entries(page)[number - int(self._starts[page])]

    def __iter__(self) -> Iterator[ShardEntry]:
        for page in range(len(self._pages)):
            entries = self._entries(page)
            yield from (entries[n] for n in range(len(entries)))

    def _entries(self, number: int) -> _Entries:
        with self._lock:
            if number in self._kept:
                self._kept.move_to_end(number)
                return self._kept[number]
        entries = self._read(number)
        with self._lock:
            self._kept[number] = entries
            while sum(map(len, self._kept.values())) > MOST_KEPT and len(self._kept) > 1:
                self._kept.popitem(last=False)
        return entries

    def _read(self, number: int) -> _Entries:
        key, folder, sha256 = self._pages[number]
        where = f"{self._store.uri}/{key}"
        way_out = f"make {self._store.uri}/{KEY} again as it was made (data pack, index or join)"
        try:
            data = self._store.get(key)
        except Missing:
            raise DataError(f"{where}: is a page of the manifest but missing; {way_out}") from None
        if (found := hashlib.sha256(data).hexdigest()) != sha256:
            raise DataError(
                f"{where}: has sha256 {found}, {KEY} says {sha256}: it changed since; {way_out}"
            )
        shards = parse_manifest(data, where).shards
        counts = self.counts[self._starts[number] : self._starts[number + 1]]
        if not np.array_equal([shard.count for shard in shards], counts):
            raise DataError(f"{where}: {KEY} says other numbers of images; {way_out}")
        return _Entries(folder, shards)


def shard_counts(shards: Sequence[ShardEntry]) -> NDArray[np.int64]:
    """Images of each shard, int64 [shards]; reads no page."""
    if isinstance(shards, PagedShards):
        return shards.counts
    return np.array([shard.count for shard in shards], dtype=np.int64)


def shard_bytes(shards: Sequence[ShardEntry]) -> int:
    """Bytes of all shards; reads no page."""
    if isinstance(shards, PagedShards):
        return shards.total_bytes
    return sum(shard.bytes for shard in shards)


def parse_paged(store: Store, content: dict[str, Any]) -> Manifest:
    """The manifest whose ``manifest.json`` in ``store`` has this content; SpecError."""
    index = parse(_Index, content)
    return Manifest(
        count=index.count,
        image=format_of(index),
        shards=PagedShards(store, index.pages),
        classes=index.classes,
        source=index.source,
        settings=index.settings,
        digest=index.digest,
    )


def write_pages(store: Store, manifest: Manifest) -> bytes:
    """Writes the pages of ``manifest``; returns the ``manifest.json`` that names them.

    A page's name has its hash, so that the set that is there stays whole until it is replaced.
    """

    def write(number: int) -> Page:
        shards = manifest.shards[number * PER_PAGE : (number + 1) * PER_PAGE]
        data = manifest_bytes(make_manifest(manifest.image, shards))
        sha256 = hashlib.sha256(data).hexdigest()
        key = f"{FOLDER}/{number:06d}-{sha256[:16]}.json"
        store.put(key, data)
        return page_of(key, "", data, shards)

    with ThreadPoolExecutor(WRITERS) as pool:
        pages = list(pool.map(write, range(-(-len(manifest.shards) // PER_PAGE))))
    return index_bytes(manifest, pages)


def page_of(key: str, folder: str, data: bytes, shards: Sequence[ShardEntry]) -> Page:
    """The page ``key`` with the content ``data``, which lists ``shards`` below ``folder``."""
    return Page(
        key=key,
        folder=folder,
        sha256=hashlib.sha256(data).hexdigest(),
        bytes=sum(shard.bytes for shard in shards),
        counts=tuple(shard.count for shard in shards),
    )


def index_bytes(manifest: Manifest, pages: Iterable[Page]) -> bytes:
    """``manifest.json`` of a set in these pages."""
    about = {
        "format": FORMAT,
        "colddiff": __version__,
        "count": manifest.count,
        "digest": manifest.digest,
        "image": asdict(manifest.image),
        "classes": list(manifest.classes),
        "source": manifest.source,
        "settings": dict(manifest.settings),
    }
    head = json.dumps(about, indent=1, allow_nan=False).removesuffix("\n}")
    lines = ",\n  ".join(json.dumps(page.to_dict()) for page in pages)
    return f'{head},\n "pages": [\n  {lines}\n ]\n}}\n'.encode()
