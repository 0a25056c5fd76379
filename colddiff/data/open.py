"""Packed sets, samples, second sets and sources of images, by address."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from colddiff.errors import SpecError
from colddiff.ports import Manifest, ShardSource, Store
from colddiff.stores.open import open_store

if TYPE_CHECKING:
    from colddiff.data.readers.second_set import OtherImages
    from colddiff.data.sources.source import ImageSource
    from colddiff.degradations import Degradation
    from colddiff.transforms import Augment
    from colddiff.types import ImageShape

Progress = Callable[[int, int], None]
MAX_DECODED_BYTES = 2 * 2**30
"""Sets that decode to no more than this are kept decoded on the local disk."""


def open_shards(
    where: str | Store,
    cache_dir: str | None = None,
    *,
    max_decoded_bytes: int = MAX_DECODED_BYTES,
) -> ShardSource:
    """The packed data set at an address or in a store; raises DataError where there is none.

    ``cache_dir`` (else COLDDIFF_CACHE, else ``~/.cache/colddiff``) holds what is decoded or
    fetched, for all processes of this machine. A set that decodes to more than
    ``max_decoded_bytes`` is streamed, in an order of its own.
    """
    from colddiff.data.manifest import read_manifest as read

    store = open_store(where) if isinstance(where, str) else where
    return _opened_shards(store, read(store), cache_dir, max_decoded_bytes)


def open_samples(
    where: str | Store, *, partial: bool = False, cache_dir: str | None = None
) -> ShardSource:
    """The images a generate job made at an address, in the order of their seeds.

    ``partial``: those that are committed by now, of a set that is not finished. Raises DataError
    where there are none, or not all and ``partial`` was not said.
    """
    from colddiff.data.sample_set import sample_manifest

    store = open_store(where) if isinstance(where, str) else where
    manifest = sample_manifest(store, partial=partial)
    return _opened_shards(store, manifest, cache_dir, MAX_DECODED_BYTES)


def _opened_shards(
    store: Store, manifest: Manifest, cache_dir: str | None, max_decoded_bytes: int
) -> ShardSource:
    from colddiff.data.readers.local_cache import LocalCache, default_folder
    from colddiff.data.readers.mapped_shards import MappedShards, decoded_bytes
    from colddiff.data.readers.streamed_shards import StreamedShards

    cache = LocalCache(cache_dir or default_folder())
    if decoded_bytes(manifest) <= max_decoded_bytes:
        return MappedShards(store, manifest, cache)
    return StreamedShards(store, manifest, cache)


def open_viewed(
    where: str | Store, augment: Augment, shape: ImageShape, name: str = "data"
) -> ShardSource:
    """A packed set as test images of a job with that ``augment`` and image shape.

    Raises DataError, starting with ``name``, where its images cannot become those.
    """
    from colddiff.data.readers.transformed import viewed

    return viewed(open_shards(where), augment, shape, name)


def open_other(D: Degradation[Any], augment: Augment = "none") -> OtherImages | None:
    """The second set that D mixes in, at its spec's ``second_set``; None where it needs none.

    The set is opened at the first draw; its images are transformed as training images are. Raises
    SpecError where the spec does not name one.
    """
    from colddiff.data.readers.second_set import OtherImages

    if not D.omega_images:
        return None
    uri = D.spec.second_set
    if uri is None:
        raise SpecError(
            [
                (
                    "degradation.other",
                    f"is required for {D.spec.kind}: the URI of the packed second set; pack one "
                    "with `colddiff data pack SOURCE --out URI --image-size "
                    f"{D.shape.height} --channels {D.shape.channels}`",
                )
            ]
        )
    return OtherImages(lambda: open_shards(uri), D.shape, augment)


def read_manifest(uri: str) -> Manifest:
    """What the packed data set at ``uri`` is; raises DataError where there is none."""
    from colddiff.data.manifest import read_manifest as read

    return read(open_store(uri))


def open_source(text: str) -> ImageSource:
    """What can be packed: digits, mnist:DIR, cifar10:DIR, folder:URI or webdataset:URI."""
    kind, _, place = text.partition(":")
    if text == "digits":
        from colddiff.data.sources.sklearn_digits import DigitsSource

        return DigitsSource()
    if place and kind in ("mnist", "cifar10"):
        from colddiff.data.sources.published import Cifar10Source, MnistSource

        return MnistSource(place) if kind == "mnist" else Cifar10Source(place)
    if place and kind == "folder":
        from colddiff.data.sources.image_folder import FolderSource

        return FolderSource(open_store(place))
    if place and kind == "webdataset":
        from colddiff.data.sources.webdataset_source import WebdatasetSource

        return WebdatasetSource(open_store(place))
    raise SpecError(
        f"no source {text!r}: give digits, mnist:DIR, cifar10:DIR, folder:DIR, "
        "folder:s3://bucket/prefix or webdataset:URI"
    )


def pack_source(
    source: str,
    uri: str,
    *,
    on_progress: Progress | None = None,
    workers: int | None = None,
    **settings: object,
) -> tuple[Manifest, bool]:
    """Packs a SOURCE to ``uri``; the manifest, and False where it had been packed before.

    ``settings`` are fields of ``PackSettings``; ``workers`` threads work at once.
    """
    from colddiff.data.pack import pack
    from colddiff.data.pack_settings import PackSettings
    from colddiff.spec import parse

    packed = pack(
        open_source(source),
        open_store(uri),
        parse(PackSettings, settings),
        on_progress,
        workers,
    )
    return packed.manifest, packed.fresh
