"""``manifest.json`` of a packed set in a store: in one file, or in pages where the set is large."""

from __future__ import annotations

from functools import partial
from itertools import islice

from colddiff.data.manifests.joined import join_sets
from colddiff.data.manifests.paged import FORMAT as PAGED
from colddiff.data.manifests.paged import MOST_IN_ONE, parse_paged, write_pages
from colddiff.data.manifests.plain import (
    KEY,
    MAX_BYTES,
    left_out_of,
    make_manifest,
    manifest_bytes,
    manifest_digest,
    parse_manifest,
)
from colddiff.data.sample_plan import refuse_unfinished
from colddiff.errors import DataError, Missing
from colddiff.machine.files import is_folder
from colddiff.ports import Manifest, Store
from colddiff.stores.local_store import LocalStore
from colddiff.stores.paths import nearest_folder
from colddiff.types import ProgressCallback

LOOKED_AT = 200
"""Files of a folder that is no packed set, to tell what it is."""

__all__ = (
    "KEY",
    "kept_manifest",
    "left_out_of",
    "make_manifest",
    "manifest_bytes",
    "manifest_digest",
    "parse_manifest",
    "read_manifest",
    "refuse_kept_manifest",
    "write_joined",
    "write_manifest",
)


def write_manifest(store: Store, manifest: Manifest, *, new: bool = False) -> None:
    """Write ``manifest.json``, which makes the data set complete; that of a large set in pages.

    ``new``: raises Exists where there is one already.
    """
    paged = len(manifest.shards) > MOST_IN_ONE
    data = write_pages(store, manifest) if paged else manifest_bytes(manifest)
    if new:
        store.put_new(KEY, data)
    else:
        store.put(KEY, data)


def _read(store: Store) -> bytes:
    """The content of ``manifest.json``, of which others may have made one of any size."""
    size = store.size(KEY)
    if size is not None and size > MAX_BYTES:
        raise DataError(f"{store.uri}/{KEY}: has {size} bytes, more than the limit of {MAX_BYTES}")
    return store.get(KEY)


def kept_manifest(store: Store) -> Manifest | None:
    """The manifest that is in ``store``; None if there is none.

    Raises DataError if there is a file of its name that is no manifest of ours.
    """
    try:
        data = _read(store)
    except Missing:
        return None
    try:
        return _parsed(store, data)
    except DataError:
        raise DataError(
            f"{store.uri}/{KEY} is not a manifest of colddiff, or is damaged, and is not replaced; "
            "use another folder, or move that file away"
        ) from None


def refuse_kept_manifest(store: Store) -> None:
    """Raises DataError if there is a manifest.json that indexing must not replace.

    One that indexing wrote may be replaced. One of packing or generating holds classes and
    settings that the tars do not; one of another program is not ours.
    """
    kept = kept_manifest(store)
    if kept is not None and kept.settings.get("source") != "index":
        raise DataError(
            f"{store.uri} is a packed set already, and its {KEY} is not replaced: use it as it is, "
            "or move the tars to another folder to index them anew"
        )


def write_joined(store: Store, on_progress: ProgressCallback | None = None) -> Manifest:
    """Joins the packed sets in the folders below ``store`` to one; ``joined.join_sets`` says how.

    Raises DataError where there is a manifest that joining did not write, too.
    """
    kept = kept_manifest(store)
    if kept is not None and kept.settings.get("source") != "join":
        raise DataError(
            f"{store.uri} is a packed set itself, and its {KEY} is not replaced: move its parts to "
            "another folder to join them"
        )
    data = join_sets(store, on_progress)
    store.put(KEY, data)
    return _parsed(store, data)


def read_manifest(store: Store) -> Manifest:
    """Read the manifest of the data set in ``store``; raises DataError if missing or invalid."""
    try:
        data = _read(store)
    except Missing:
        if isinstance(store, LocalStore) and not is_folder(store.root):
            made = f"; a packed data set is made with `colddiff data pack SOURCE --out {store.uri}`"
            raise DataError(
                f"{store.uri}: no such folder{nearest_folder(store.root) or made}"
            ) from None
        if store.size(f"train/{KEY}") is not None:
            raise DataError(
                f"{store.uri} holds two packed sets, the splits of a source: use {store.uri}/train "
                f"or {store.uri}/test"
            ) from None
        refuse_unfinished(store)
        if (found := _source_in(store)) is not None:
            what, source = found
            raise DataError(
                f"{store.uri} is {what} and no packed data set: pack it with `colddiff data pack "
                f"{source} --out URI` (a job takes {source} itself, too)"
            ) from None
        raise DataError(
            f"{store.uri}: no {KEY}, so this is not a packed data set, or packing did not finish; "
            f"make one with `colddiff data pack SOURCE --out {store.uri}`, or index existing tars "
            f"with `colddiff data index {store.uri}`"
        ) from None
    return _parsed(store, data)


def splits_in(store: Store) -> list[str]:
    """Which of train and test are packed sets below ``store``; none where it is a set itself."""
    if store.size(KEY) is not None:
        return []
    return [split for split in ("train", "test") if store.size(f"{split}/{KEY}") is not None]


def _parsed(store: Store, data: bytes) -> Manifest:
    return parse_manifest(data, f"{store.uri}/{KEY}", {PAGED: partial(parse_paged, store)})


def _source_in(store: Store) -> tuple[str, str] | None:
    """What a folder on a disk holds that can be packed, and its SOURCE, as its files tell."""
    if not isinstance(store, LocalStore):
        return None
    from colddiff.data.sources.published import published_in

    if (source := published_in(store.root)) is not None:
        return "a published set", source
    first = islice(store.root.rglob("*"), LOOKED_AT)
    if any(path.suffix.lower() in (".png", ".jpg", ".jpeg") for path in first):
        return "a folder of images", f"folder:{store.uri}"
    return None
