"""What is done with packed sets as a whole: indexed where they lie, checked, compared."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from colddiff.data.open import open_shards, read_manifest
from colddiff.stores.open import open_store

if TYPE_CHECKING:
    from colddiff.data.verify import BadShard
    from colddiff.ports import Manifest

Progress = Callable[[int, int], None]


def index_shards(uri: str, on_progress: Progress | None = None) -> Manifest:
    """Writes the manifest of tars packed elsewhere beside them."""
    from colddiff.data.manifest import write_manifest
    from colddiff.data.sources.webdataset_source import index_tars

    store = open_store(uri)
    manifest = index_tars(store, on_progress)
    write_manifest(store, manifest)
    return manifest


def verify_shards(uri: str, on_progress: Progress | None = None) -> list[BadShard]:
    """The shards at ``uri`` that are not what their manifest says."""
    from colddiff.data.verify import verify

    return verify(open_store(uri), read_manifest(uri), on_progress)


def verify_some(uri: str, budget_s: float) -> tuple[int, list[BadShard]]:
    """How many shards at ``uri`` were hashed within ``budget_s``, and those that are bad."""
    from colddiff.data.verify import verify_some as verify

    return verify(open_store(uri), read_manifest(uri), budget_s)


def near_duplicates(
    uri: str,
    other: str | None,
    max_bits: int,
    max_rmse: float,
    on_progress: Progress | None = None,
) -> list[dict[str, Any]]:
    """Near pairs of images of a packed set, or of two, JSON-ready: where each lies, how near."""
    from colddiff.data.near_duplicates import near_images

    sources = [open_shards(place) for place in (uri, other) if place is not None]
    return near_images(sources, max_bits, max_rmse, on_progress)
