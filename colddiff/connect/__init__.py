"""Picks the adapter behind each address; adapters are imported when they are needed."""

from __future__ import annotations

from colddiff.connect.features import (
    located_features,
    open_features,
)
from colddiff.connect.images import (
    MAX_DECODED_BYTES,
    make_terminal,
    open_other,
    open_samples,
    open_shards,
    open_source,
    open_viewed,
    pack_source,
    read_manifest,
)
from colddiff.connect.stores import (
    absolute,
    check_writable,
    free_bytes,
    open_store,
    storage_at,
)
from colddiff.connect.tracking import (
    check_tracker,
    deliver_late,
    job_of_run,
    null_tracker,
    open_tracker,
    replay_tracking,
    system_sampler,
    tracking_uri,
    waits_for_tracker,
)

__all__ = [
    "MAX_DECODED_BYTES",
    "absolute",
    "check_tracker",
    "check_writable",
    "deliver_late",
    "free_bytes",
    "job_of_run",
    "located_features",
    "make_terminal",
    "null_tracker",
    "open_features",
    "open_other",
    "open_samples",
    "open_shards",
    "open_source",
    "open_store",
    "open_tracker",
    "open_viewed",
    "pack_source",
    "read_manifest",
    "replay_tracking",
    "storage_at",
    "system_sampler",
    "tracking_uri",
    "waits_for_tracker",
]
