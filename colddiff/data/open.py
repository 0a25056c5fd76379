"""Opens packed sets, sample sets, second sets and sources of images by address."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from colddiff.errors import SpecError
from colddiff.ports import Manifest, ShardSource, Store
from colddiff.stores.open import open_store

if TYPE_CHECKING:
    from colddiff.data.pack_settings import PackSettings
    from colddiff.data.readers.second_set import SecondSet
    from colddiff.data.sources.source import ImageSource
    from colddiff.degradations import Degradation
    from colddiff.transforms import Augment
    from colddiff.types import ImageShape, ProgressCallback

MAX_DECODED_BYTES = 2 * 2**30
"""Sets whose decoded pixels take no more than this are cached decoded on the local disk."""


def open_shards(
    where: str | Store,
    cache_dir: str | None = None,
    *,
    max_decoded_bytes: int = MAX_DECODED_BYTES,
) -> ShardSource:
    """Open the packed data set at an address or in a store; raises DataError if there is none.

    ``cache_dir`` (default: COLDDIFF_CACHE, else ``~/.cache/colddiff``) caches decoded pixels and
    fetched shards for all processes on this machine. A set that decodes to more than
    ``max_decoded_bytes`` is streamed instead; its images then come in a different order.
    """
    from colddiff.data.manifest import read_manifest as read

    store = open_store(where) if isinstance(where, str) else where
    return _open_reader(store, read(store), cache_dir, max_decoded_bytes)


def open_samples(
    where: str | Store, *, partial: bool = False, cache_dir: str | None = None
) -> ShardSource:
    """Open the output of a generate job as a data set, in seed order.

    ``partial``: accept an unfinished set and use the shards committed so far. Raises DataError if
    there are no samples, or if the set is unfinished and ``partial`` is False.
    """
    from colddiff.data.sample_set import sample_manifest

    store = open_store(where) if isinstance(where, str) else where
    manifest = sample_manifest(store, partial=partial)
    return _open_reader(store, manifest, cache_dir, MAX_DECODED_BYTES)


def _open_reader(
    store: Store, manifest: Manifest, cache_dir: str | None, max_decoded_bytes: int
) -> ShardSource:
    from colddiff.data.readers.local_cache import LocalCache, default_folder
    from colddiff.data.readers.mapped_shards import MappedShards, decoded_bytes
    from colddiff.data.readers.streamed_shards import StreamedShards

    cache = LocalCache(cache_dir or default_folder())
    if decoded_bytes(manifest) <= max_decoded_bytes:
        return MappedShards(store, manifest, cache)
    return StreamedShards(store, manifest, cache)


def open_transformed(
    where: str | Store,
    augment: Augment,
    shape: ImageShape,
    name: str = "data",
    *,
    max_decoded_bytes: int = MAX_DECODED_BYTES,
) -> ShardSource:
    """Open a packed set as the test images of a job with this ``augment`` and image shape.

    ``max_decoded_bytes``: as of ``open_shards``.

    Raises DataError, prefixed with ``name``, if its images cannot be transformed to that shape.
    """
    from colddiff.data.readers.transformed import transformed

    source = open_shards(where, max_decoded_bytes=max_decoded_bytes)
    return transformed(source, augment, shape, name)


def open_second_set(D: Degradation[Any], augment: Augment = "none") -> SecondSet | None:
    """The second image set that D mixes in, at its spec's ``second_set``; None if D needs none.

    It is opened on the first draw; its images are transformed like training images. Raises
    SpecError where the spec does not name one.
    """
    from colddiff.data.readers.second_set import SecondSet

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
    return SecondSet(lambda: open_shards(uri), D.shape, augment)


def read_manifest(uri: str) -> Manifest:
    """The manifest of the packed data set at ``uri``; raises DataError if there is none."""
    from colddiff.data.manifest import read_manifest as read

    return read(open_store(uri))


def open_source(text: str, settings: PackSettings | None = None) -> ImageSource:
    """Open a SOURCE to pack: digits, mnist:DIR, cifar10:DIR, folder:URI or webdataset:URI.

    ``settings`` say how values that are no levels become pixels. Raises SpecError for any other
    text.
    """
    kind, _, place = text.partition(":")
    if text == "digits":
        from colddiff.data.sources.sklearn_digits import DigitsSource

        return DigitsSource()
    if place and kind in ("mnist", "cifar10"):
        from colddiff.data.sources.published import Cifar10Source, MnistSource

        return MnistSource(place) if kind == "mnist" else Cifar10Source(place)
    if place and kind == "folder":
        from colddiff.data.sources.image_folder import FolderSource

        if settings is None:
            return FolderSource(open_store(place))
        from colddiff.data.stacks.frames import Levels

        levels = Levels(settings.bits, settings.range)
        return FolderSource(open_store(place), levels, first_frames=settings.frames == "first")
    if place and kind == "webdataset":
        from colddiff.data.sources.webdataset_source import WebdatasetSource

        return WebdatasetSource(open_store(place))
    hint = ""
    if Path(text).is_dir():
        from colddiff.data.sources.published import published_in

        hint = f"; did you mean {published_in(Path(text)) or f'folder:{text}'!r}?"
    raise SpecError(
        f"no source {text!r}: use digits, mnist:DIR, cifar10:DIR, folder:DIR, "
        f"folder:s3://bucket/prefix or webdataset:URI{hint}"
    )


def pack_source(
    source: str,
    uri: str,
    *,
    on_progress: ProgressCallback | None = None,
    on_altered: Callable[[str], None] = lambda line: None,
    workers: int | None = None,
    skip_broken: bool = False,
    **settings: object,
) -> tuple[Manifest, bool]:
    """Packs a SOURCE to ``uri``; the manifest, and False where it had been packed before.

    ``settings`` are fields of ``PackSettings``; ``workers`` threads work at once. ``on_altered`` is
    told in lines how many images are stored as less, or more, than they were (``Altered``); with
    ``skip_broken``, images that cannot be decoded are left out.
    """
    from colddiff.data.left_out import altered_lines
    from colddiff.data.pack import pack
    from colddiff.data.pack_settings import PackSettings
    from colddiff.spec import parse

    chosen = parse(PackSettings, settings)
    packed = pack(
        open_source(source, chosen),
        open_store(uri),
        chosen,
        on_progress,
        workers,
        skip_broken=skip_broken,
    )
    for line in altered_lines([packed.altered]):
        on_altered(line)
    return packed.manifest, packed.fresh
