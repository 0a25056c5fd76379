"""A packed set as a sequence of images in [-1, 1]: ``colddiff.open_data``."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from operator import index
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset

from colddiff.data.open import open_samples, open_shards, pack_source
from colddiff.data.pack_settings import PackSettings
from colddiff.data.resolve import SOURCE
from colddiff.data.sample_plan import KEY as PLAN
from colddiff.data.webdataset_tar import tar_description, tar_samples
from colddiff.errors import DataError, SpecError
from colddiff.ports import Manifest, ShardEntry, ShardSource, Store
from colddiff.spec import digest, parse
from colddiff.spec.documents import shown
from colddiff.stores.open import absolute, open_store, storage_at
from colddiff.transforms import normalise
from colddiff.types import Image, ImageShape


class ImageData(Dataset[Image]):
    """The images of a packed set: ``data[3]`` is float32 [C, H, W] in [-1, 1].

    ``data[:16]`` and ``data[[3, 5]]`` are [B, C, H, W]. A data set for torch's ``DataLoader``, too.
    """

    def __init__(self, source: ShardSource, store: Store) -> None:
        self._source, self._store = source, store

    @property
    def manifest(self) -> Manifest:
        """What the set is: its count, image format, shards, classes, source, digest."""
        return self._source.manifest

    @property
    def shape(self) -> ImageShape:
        """Shape of its images, as ``build_degradation`` takes it."""
        image = self.manifest.image
        return ImageShape(image.channels, image.height, image.width)

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the labels; empty if there are none."""
        return self.manifest.classes

    @cached_property
    def labels(self) -> tuple[int | None, ...]:
        """The label of each image, an index into ``classes``, or None; read from all shards."""
        return tuple(labels_of(self._store, self.manifest))

    def levels(self, start: int, stop: int) -> NDArray[np.uint8] | NDArray[np.uint16]:
        """Images ``start``..``stop`` - 1 as they are stored, uint8 or uint16 [N, C, H, W]."""
        return self._source.images(start, stop)

    def __len__(self) -> int:
        return self.manifest.count

    def __getitem__(self, item: int | slice | Sequence[int]) -> Image:
        if isinstance(item, slice):
            return self._batch(range(*item.indices(len(self))))
        if isinstance(item, Sequence) or (hasattr(item, "__len__") and not isinstance(item, int)):
            return self._batch([self._number(n) for n in item])
        return self._batch([self._number(item)])[0]

    def __iter__(self) -> Iterator[Image]:
        for number in range(len(self)):
            yield self[number]

    def __repr__(self) -> str:
        manifest = self.manifest
        return (
            f"ImageData({manifest.count} images {self.shape}, {manifest.image.bits} bit, "
            f"{len(manifest.classes)} classes, {self._store.uri})"
        )

    def _number(self, item: int) -> int:
        number = index(item)
        if not -len(self) <= number < len(self):
            raise IndexError(f"image {number} of a set of {len(self)}")
        return number % len(self)

    def _batch(self, numbers: Sequence[int]) -> Image:
        if not len(numbers):
            return torch.empty(0, *self.shape.chw)
        if isinstance(numbers, range) and numbers.step == 1:
            found = np.array(self._source.images(numbers.start, numbers.stop))
        else:
            found = np.concatenate([self._source.images(n, n + 1) for n in numbers])
        return normalise(torch.from_numpy(found))


def open_data(uri: str, *, storage: str | None = None, **settings: Any) -> ImageData:
    """The packed set at a folder or ``s3://bucket/prefix``, as images in [-1, 1].

    ::

        data = colddiff.open_data("s3://bucket/photos")
        x0, D = data[:8], colddiff.build_degradation({"kind": "blur"}, data.shape)

    A set that ``colddiff submit generate`` made is one, too. A SOURCE, such as ``digits`` or
    ``folder:./photos``, is packed once into ``storage``/data (default: COLDDIFF_STORAGE, else
    ./runs), with the ``settings`` of `colddiff data pack`: ``image_size=64``, ``limit=500``,
    ``bits=16, range=(-1000, 2000)``, ... Warns of images that are stored without their alpha, and
    of grey ones in a set in colour.

    Raises DataError if there is no packed set, or images that cannot be packed; SpecError for
    settings that do not apply.
    """
    if not isinstance(uri, str):
        raise SpecError(f"open_data takes a packed set's address or a SOURCE, got {shown(uri)}")
    if SOURCE.match(uri):
        uri = _packed(uri, settings, storage_at(storage))
    elif settings:
        raise SpecError(
            f"{', '.join(settings)}: of a SOURCE that is packed, such as folder:DIR; "
            f"{uri!r} is the address of a packed set"
        )
    store = open_store(uri)
    if store.size(PLAN) is not None:
        return ImageData(open_samples(store), store)
    return ImageData(open_shards(store), store)


def _packed(source: str, settings: dict[str, Any], storage: str) -> str:
    kind, _, place = source.partition(":")
    source = f"{kind}:{absolute(place)}" if place else kind
    chosen = parse(PackSettings, settings).to_dict()
    uri = f"{storage}/data/{kind}-{digest([source, chosen])[:8]}/all"
    altered: list[str] = []
    if "bits" not in settings:
        del chosen["bits"]  # given, 8 bits would convert 16-bit images
    try:
        pack_source(source, uri, on_altered=altered.append, **chosen)
    except DataError as error:
        raise DataError(
            _in_python(str(error)), [_in_python(line) for line in error.details]
        ) from None
    for line in altered:
        warnings.warn(line, stacklevel=3)  # at the caller of open_data
    return uri


def _in_python(text: str) -> str:
    """An error's text with settings as in Python: ``bits=16``, not ``--bits 16``."""
    named = re.sub(r"(?<!pack )--([a-z-]+) (\d+)", r"\1=\2", text)
    return named.replace("set --image-size", "set image_size")


def labels_of(store: Store, manifest: Manifest) -> Iterator[int | None]:
    """The label of each image of a packed set in order, read from its shards; None without one.

    Raises DataError for a shard that does not hold the images that the manifest says.
    """
    for description in _descriptions(store, manifest):
        label = description.get("label")
        yield label if isinstance(label, int) else None


def names_of(store: Store, manifest: Manifest) -> Iterator[str]:
    """The name of each image's source in order, such as the file it was packed from; or its number.

    Raises DataError as ``labels_of`` does.
    """
    for number, description in enumerate(_descriptions(store, manifest)):
        yield str(description.get("source", number))


def sources_in(store: Store, shard: ShardEntry) -> list[str | None]:
    """The name of each image's source in one shard, None where it has none.

    Raises DataError as ``labels_of`` does.
    """
    named = (description.get("source") for description in _described(store, shard))
    return [None if name is None else str(name) for name in named]


def _descriptions(store: Store, manifest: Manifest) -> Iterator[Mapping[str, Any]]:
    for shard in manifest.shards:
        yield from _described(store, shard)


def _described(store: Store, shard: ShardEntry) -> Iterator[Mapping[str, Any]]:
    data = store.get(shard.key)
    samples = tar_samples(io.BytesIO(data), shard.key)
    if len(samples) != shard.count:
        raise DataError(
            f"{store.uri}/{shard.key}: holds {len(samples)} images, the manifest says "
            f"{shard.count}; see `colddiff data verify {store.uri}`"
        )
    for sample in samples:
        yield tar_description(data, sample, shard.key)
