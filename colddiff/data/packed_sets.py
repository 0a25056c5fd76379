"""Operations on whole packed sets: index in place, verify, find near duplicates."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from colddiff.data.open import open_shards, read_manifest
from colddiff.stores.open import open_store

if TYPE_CHECKING:
    from colddiff.data.verify import BadShard
    from colddiff.ports import Manifest
    from colddiff.types import ProgressCallback


def index_shards(uri: str, on_progress: ProgressCallback | None = None) -> Manifest:
    """Write a manifest beside existing tars packed by other tools.

    Raises DataError if a manifest is there that ``index_shards`` did not write.
    """
    from colddiff.data.manifest import refuse_kept_manifest, write_manifest
    from colddiff.data.sources.webdataset_source import index_tars

    store = open_store(uri)
    refuse_kept_manifest(store)
    manifest = index_tars(store, on_progress)
    write_manifest(store, manifest)
    return manifest


def join_sets(uri: str, on_progress: ProgressCallback | None = None) -> Manifest:
    """Write the manifest that makes one set of the packed sets in the folders below ``uri``."""
    from colddiff.data.manifest import write_joined

    return write_joined(open_store(uri), on_progress)


def verify_shards(uri: str, on_progress: ProgressCallback | None = None) -> list[BadShard]:
    """The shards at ``uri`` that do not match their manifest."""
    from colddiff.data.verify import verify

    return verify(open_store(uri), read_manifest(uri), on_progress)


def verify_sample(
    uri: str, count: int, seed: int, on_progress: ProgressCallback | None = None
) -> list[BadShard]:
    """Those of ``count`` shards at ``uri``, drawn with ``seed``, that do not match the manifest."""
    from colddiff.data.verify import drawn_shards, verify

    manifest = read_manifest(uri)
    drawn = drawn_shards(manifest, count, seed)
    return verify(open_store(uri), manifest, on_progress, only=drawn)


def verify_some(uri: str, budget_s: float) -> tuple[int, list[BadShard]]:
    """Number of shards at ``uri`` hashed within ``budget_s`` seconds, and the bad ones."""
    from colddiff.data.verify import verify_some as verify

    return verify(open_store(uri), read_manifest(uri), budget_s)


def near_duplicates(
    uri: str,
    other: str | None,
    max_bits: int,
    max_rmse: float,
    on_progress: ProgressCallback | None = None,
) -> list[dict[str, Any]]:
    """Near-duplicate pairs within a packed set or between two, JSON-ready.

    The ``name`` of an image is the file that it was packed from, None where the set does not say.
    """
    from colddiff.data.near_duplicates import near_images
    from colddiff.data.readers.image_data import sources_in

    sources = [open_shards(place) for place in (uri, other) if place is not None]
    pairs = near_images(sources, max_bits, max_rmse, on_progress)
    for side, place, source in zip(
        ("first", "second"), (uri, other or uri), (sources[0], sources[-1]), strict=True
    ):
        store, shards = open_store(place), {shard.key: shard for shard in source.manifest.shards}
        names = {
            key: sources_in(store, shards[key]) for key in {pair[side]["shard"] for pair in pairs}
        }
        for pair in pairs:
            pair[side]["name"] = names[pair[side]["shard"]][pair[side]["number"]]
    return pairs
