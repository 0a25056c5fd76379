"""Existing webdataset tars: a source to pack from, or to index in place."""

from __future__ import annotations

import io
import threading
from collections import OrderedDict
from collections.abc import Sequence
from functools import cached_property
from typing import Any

from colddiff.data.manifest import make_manifest
from colddiff.data.pil_images import Pixels, decode_image
from colddiff.data.sources.source import SourceEntry
from colddiff.data.tars import shard_entry
from colddiff.data.webdataset_tar import TarSample, tar_description, tar_pixels, tar_samples
from colddiff.errors import DataError
from colddiff.ports import ImageFormat, Manifest, ShardEntry, Store
from colddiff.types import ProgressCallback

HELD = 4


class WebdatasetSource:
    """The images of all tars below a store, in key order; a few tars are kept in memory."""

    classes: tuple[str, ...] = ()
    splits: tuple[str, ...] = ()
    # Such tars are shuffled when made, and reading in order loads each tar once.
    sorted_by_name = False
    default_holdout: float | None = None

    def __init__(self, store: Store) -> None:
        self._store = store
        self._held: OrderedDict[str, tuple[bytes, dict[str, TarSample]]] = OrderedDict()
        self._lock = threading.Lock()

    @property
    def uri(self) -> str:
        return f"webdataset:{self._store.uri}"

    def entries(self, split: str | None) -> Sequence[SourceEntry]:
        return self._entries

    def load(self, entry: SourceEntry) -> Pixels:
        key, _, name = entry.name.partition("#")
        data, samples = self._tar(key)
        return decode_image(samples[name].image.of(data), f"{self._store.uri}/{entry.name}")

    @cached_property
    def _entries(self) -> list[SourceEntry]:
        found = []
        for key in tar_keys(self._store):
            data, samples = self._tar(key)
            for name, sample in samples.items():
                described = tar_description(data, sample, f"{self._store.uri}/{key}")
                label = described.get("label")
                number = label if isinstance(label, int) and label >= 0 else None
                found.append(SourceEntry(f"{key}#{name}", number, size=sample.image.size))
        return found

    def _tar(self, key: str) -> tuple[bytes, dict[str, TarSample]]:
        with self._lock:
            if key not in self._held:
                data = self._store.get(key)
                samples = tar_samples(io.BytesIO(data), f"{self._store.uri}/{key}")
                self._held[key] = (data, {sample.name: sample for sample in samples})
                while len(self._held) > HELD:
                    self._held.popitem(last=False)
            self._held.move_to_end(key)
            return self._held[key]


def tar_keys(store: Store) -> list[str]:
    """Keys of the tars in ``store``, in order; raises DataError if there are none."""
    keys = [item.key for item in store.list() if item.key.endswith(".tar")]
    if not keys:
        raise DataError(f"{store.uri}: no .tar files found (compressed tars are not supported)")
    return keys


def index_tars(store: Store, on_progress: ProgressCallback | None = None) -> Manifest:
    """Build a manifest of tars packed by other tools; decodes each image once, writes nothing.

    Raises DataError if an image cannot be decoded or differs in size or depth from the first, if a
    tar has no images, or if ``colddiff data pack`` did not finish there.
    """
    if store.size("pack.json") is not None:
        raise DataError(
            f"{store.uri}: packing did not finish; run the same `colddiff data pack` again"
        )
    keys = tar_keys(store)
    shards: list[ShardEntry] = []
    image: ImageFormat | None = None
    for done, key in enumerate(keys, 1):
        data, where = store.get(key), f"{store.uri}/{key}"
        samples = tar_samples(io.BytesIO(data), where)
        if not samples:
            raise DataError(
                f"{where}: contains no PNG or JPEG images; a suffix starts at the name's first "
                "dot, so `cat.1.jpg` is not recognised: rename it to cat_1.jpg"
            )
        if image is None:
            image = _format(decode_image(samples[0].image.of(data), f"{where}: {samples[0].name}"))
        for sample in samples:
            _refuse_other_format(data, sample, image, where)
        shards.append(shard_entry(key, len(samples), data))
        if on_progress is not None:
            on_progress(done, len(keys))
    assert image is not None
    settings: dict[str, Any] = {"source": "index"}
    return make_manifest(image, shards, source=f"webdataset:{store.uri}", settings=settings)


def _format(pixels: Pixels) -> ImageFormat:
    height, width, channels = pixels.shape
    return ImageFormat(channels, height, width, bits=8 * pixels.dtype.itemsize)


def _refuse_other_format(data: bytes, sample: TarSample, image: ImageFormat, where: str) -> None:
    try:
        tar_pixels(data, sample, image, where)
    except DataError as error:
        way_out = "use `colddiff data pack webdataset:URI --image-size N --channels C` instead"
        raise DataError(f"{error}; {way_out}") from None
