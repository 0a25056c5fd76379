"""Existing webdataset tars: a source to pack from, or to index in place."""

from __future__ import annotations

import io
import threading
from collections import Counter, OrderedDict
from collections.abc import Collection, Sequence
from functools import cached_property
from typing import Any

from colddiff.data.left_out import FRAMES, LeftOut
from colddiff.data.manifest import KEY, make_manifest
from colddiff.data.pil_images import Pixels, decode_file
from colddiff.data.problems import Problems
from colddiff.data.sample_plan import refuse_unfinished
from colddiff.data.sources.source import ImageSource, SourceEntry, nothing_found
from colddiff.data.tars import shard_entry
from colddiff.data.webdataset_tar import TarSample, tar_description, tar_samples
from colddiff.errors import DataError, SpecError
from colddiff.ports import ImageFormat, ListedKey, Manifest, ShardEntry, Store
from colddiff.stores.keys import checked_key
from colddiff.types import ProgressCallback

HELD = 4
MAX_TAR_BYTES = 16 * 2**30
"""Largest tar that is read; a file may claim any size, and a tar is read whole."""


class WebdatasetSource:
    """The images of all tars below a store, in key order; a few tars are kept in memory."""

    classes: tuple[str, ...] = ()
    splits: tuple[str, ...] = ()
    # Such tars are shuffled when made, and reading in order loads each tar once.
    sorted_by_name = False
    default_holdout: float | None = None
    earlier: ImageSource | None = None

    def __init__(self, store: Store) -> None:
        self._store = store
        self._held: OrderedDict[str, tuple[bytes, dict[str, TarSample]]] = OrderedDict()
        self._lock = threading.Lock()
        self._left_out = LeftOut()
        self._multiframe: set[str] = set()
        self._transparent: set[str] = set()

    @property
    def uri(self) -> str:
        return f"webdataset:{self._store.uri}"

    @property
    def left_out(self) -> LeftOut:
        return self._left_out

    @property
    def multiframe(self) -> Collection[str]:
        return self._multiframe

    @property
    def transparent(self) -> Collection[str]:
        return self._transparent

    def entries(self, split: str | None) -> Sequence[SourceEntry]:
        return self._entries

    def load(self, entry: SourceEntry) -> Pixels:
        key, _, name = entry.name.partition(".tar#")
        data, samples = self._tar(ListedKey(f"{key}.tar"))
        decoded = decode_file(samples[name].image.of(data), f"{self._store.uri}/{entry.name}")
        if decoded.multiframe:
            self._multiframe.add(entry.name)
        if decoded.transparent:
            self._transparent.add(entry.name)
        return decoded.pixels

    @cached_property
    def _entries(self) -> list[SourceEntry]:
        found, problems = list[SourceEntry](), Problems()
        for key in tar_keys(self._store, self._left_out):
            try:
                found += self._entries_of(key, problems)
            except DataError as error:
                problems.add(str(error))
        problems.refuse("tars or labels cannot be read")
        if not found:
            what = "its tars hold no PNG or JPEG images that can be packed"
            raise nothing_found("webdataset", self._store, what, self._left_out)
        return found

    def _entries_of(self, key: str, problems: Problems) -> list[SourceEntry]:
        found, where = [], f"{self._store.uri}/{key}"
        data, samples = self._tar(key, self._left_out)
        for name, sample in samples.items():
            number = None
            try:
                label = tar_description(data, sample, where).get("label")
                number = label if isinstance(label, int) and label >= 0 else None
            except DataError as error:
                problems.add(str(error))
            found.append(SourceEntry(f"{key}#{name}", number, size=sample.image.size))
        return found

    def _tar(self, key: str, left_out: LeftOut | None = None) -> tuple[bytes, dict[str, TarSample]]:
        with self._lock:
            if key not in self._held:
                data = self._store.get(key)
                samples = _samples(data, self._store, key, left_out)
                self._held[key] = (data, {sample.name: sample for sample in samples})
                while len(self._held) > HELD:
                    self._held.popitem(last=False)
            self._held.move_to_end(key)
            return self._held[key]


def tar_keys(store: Store, left_out: LeftOut) -> list[str]:
    """Keys of the tars in ``store``, in order; raises DataError if there are none."""
    keys: list[str] = []
    for item in store.list():
        if not item.key.endswith(".tar"):
            why = "compressed or renamed tars" if ".tar" in item.key.lower() else "other files"
            why = "compressed or renamed tars" if item.key.lower().endswith(".tgz") else why
            left_out.add(why, item.key)
        elif item.size > MAX_TAR_BYTES:
            raise DataError(
                f"{store.uri}/{item.key}: {item.size} bytes, more than the limit of "
                f"{MAX_TAR_BYTES} for one tar; split it"
            )
        else:
            keys.append(item.key)
    if not keys:
        what = "no .tar files found (compressed tars are not supported)"
        raise nothing_found("webdataset", store, what, left_out)
    return keys


def index_tars(store: Store, on_progress: ProgressCallback | None = None) -> Manifest:
    """Build a manifest of tars packed by other tools; decodes each image once, writes nothing.

    What was passed over is in its settings. Raises DataError naming all images that cannot be
    decoded, sizes or depths that differ, tars without images, and names that no shard can have;
    or if ``colddiff data pack`` did not finish there.
    """
    if store.size("pack.json") is not None:
        raise DataError(
            f"{store.uri}: packing did not finish; run the same `colddiff data pack` again"
        )
    if store.size(KEY) is None:
        refuse_unfinished(store)
    left_out, problems = LeftOut(), Problems()
    keys = tar_keys(store, left_out)
    index = _Index(store, left_out, problems)
    for done, key in enumerate(keys, 1):
        index.add(key)
        if on_progress is not None:
            on_progress(done, len(keys))
    image = index.image()
    problems.refuse("problems with the tars")
    settings: dict[str, Any] = {"source": "index"}
    if left_out:
        settings["left_out"] = left_out.to_list()
    return make_manifest(image, index.shards, source=f"webdataset:{store.uri}", settings=settings)


class _Index:
    """The shards and image formats of tars, one after the other."""

    def __init__(self, store: Store, left_out: LeftOut, problems: Problems) -> None:
        self._store, self._left_out, self._problems = store, left_out, problems
        self._formats: Counter[tuple[int, int, int]] = Counter()
        self._first: dict[tuple[int, int, int], str] = {}
        self._channels = 1
        self.shards: list[ShardEntry] = []

    def add(self, key: str) -> None:
        """Reads one tar and decodes its images."""
        where = f"{self._store.uri}/{key}"
        try:
            checked_key(str(key))
        except SpecError:
            self._problems.add(f"{where!r}: a shard cannot have this name; rename it")
            return
        try:
            data = self._store.get(key)
            samples = _samples(data, self._store, key, self._left_out)
        except DataError as error:
            self._problems.add(str(error))
            return
        if not samples:
            self._problems.add(
                f"{where}: contains no PNG or JPEG images; a suffix starts at the name's first "
                "dot, so `cat.1.jpg` is not recognised: rename it to cat_1.jpg"
            )
            return
        for sample in samples:
            self._decode(data, sample, key)
        self.shards.append(shard_entry(key, len(samples), data))

    def _decode(self, data: bytes, sample: TarSample, key: str) -> None:
        name = f"{self._store.uri}/{key}: {sample.name}"
        try:
            decoded = decode_file(sample.image.of(data), name)
        except DataError as error:
            self._problems.add(str(error))
            return
        if decoded.multiframe:
            self._left_out.add(FRAMES, f"{key}#{sample.name}")
        height, width, channels = decoded.pixels.shape
        found = height, width, 8 * decoded.pixels.dtype.itemsize
        self._formats[found] += 1
        self._first.setdefault(found, name)
        # Grey images of a colour set are read with three equal channels.
        self._channels = max(self._channels, channels)

    def image(self) -> ImageFormat:
        """The format of all images; a problem for each format that is not the most frequent."""
        if not self._formats:
            self._problems.refuse("problems with the tars")
            raise DataError(f"{self._store.uri}: no images found")
        height, width, bits = usual = self._formats.most_common(1)[0][0]
        for found, count in self._formats.items():
            if found != usual:
                more = f" and {count - 1} more" if count > 1 else ""
                self._problems.add(
                    f"{self._first[found]}: is {found[1]}x{found[0]} of {found[2]} bits{more}, "
                    f"{self._formats[usual]} images are {width}x{height} of {bits}; use `colddiff "
                    "data pack webdataset:URI --image-size N --channels C` instead"
                )
        if bits == 16 and self._channels > 1:
            self._problems.add(f"{self._store.uri}: holds 16-bit grey and colour images")
        return ImageFormat(self._channels, height, width, bits=bits)


def _samples(data: bytes, store: Store, key: str, left_out: LeftOut | None) -> list[TarSample]:
    def passed_over(why: str, name: str) -> None:
        if left_out is not None:
            left_out.add(why, f"{key}#{name}")

    return tar_samples(io.BytesIO(data), f"{store.uri}/{key}", passed_over)
