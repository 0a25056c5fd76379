"""Commit a shard exactly once: by a conditional write, or by finding the same bytes stored."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from colddiff.data.sample_plan import ShardTask
from colddiff.data.sample_set import record_key
from colddiff.data.tars import read_tar, shard_entry, write_tar
from colddiff.errors import ColddiffError, Exists, Missing
from colddiff.ports import ShardEntry, Store

Members = Sequence[tuple[str, bytes]]


class OtherBytes(ColddiffError):
    """A shard is already stored with bytes that differ from those this machine makes."""


@dataclass(frozen=True, slots=True)
class Packed:
    """A shard's bytes, and its manifest entry."""

    task: ShardTask
    entry: ShardEntry
    members: Members
    data: bytes


def packed_tar(task: ShardTask, members: Members) -> Packed:
    """The shard as a tar: equal members give equal bytes."""
    data = write_tar(members)
    return Packed(task, shard_entry(task.key, task.count, data), members, data)


def packed_folder(task: ShardTask, members: Members) -> Packed:
    """The shard as single PNG files; its hash is over all of them, in order."""
    images = [(name, content) for name, content in members if name.endswith(".png")]
    data = b"".join(content for _, content in images)
    return Packed(task, shard_entry(task.key, task.count, data), images, data)


def commit_tar(store: Store, packed: Packed, record: Mapping[str, Any]) -> bool:
    """Adds the tar to the set; False if the same images were stored already.

    A longer stored shard that starts with our members is kept. A shorter one that our members
    start with is replaced: it is the last shard of a smaller set, the only object ever replaced.

    Raises:
        OtherBytes: the stored shard is neither.
        StoreError: the store is unreachable.
    """
    store.put(record_key(packed.task.number, packed.entry), encoded_record(packed.entry, record))
    for _ in range(3):
        try:
            store.put_new(packed.entry.key, packed.data)
            return True
        except Exists:
            pass
        try:
            stored = store.get(packed.entry.key)
        except Missing:
            continue  # deleted since; write it again
        if stored == packed.data:
            return False
        present, ours = read_tar(stored), list(packed.members)
        if present[: len(ours)] == ours:
            return False
        if present and ours[: len(present)] == present:
            store.put(packed.entry.key, packed.data)
            return True
        raise OtherBytes(
            f"{store.uri}/{packed.entry.key}: stored bytes have sha256 "
            f"{hashlib.sha256(stored).hexdigest()[:12]}..., those made here "
            f"{packed.entry.sha256[:12]}...: another kind of machine or library version made them "
            f"(see its record in {store.uri}/records); use equal workers, or delete that tar"
        )
    raise ColddiffError(
        f"{store.uri}/{packed.entry.key}: deleted while it was being committed; is another process "
        "deleting objects there?"
    )


def commit_folder(store: Store, packed: Packed, record: Mapping[str, Any]) -> bool:
    """Writes the PNG files and then the record that commits them; False if all were stored."""
    fresh = False
    for name, content in packed.members:
        try:
            store.put_new(name, content)
            fresh = True
        except Exists:
            if store.get(name) != content:
                raise OtherBytes(
                    f"{store.uri}/{name}: differs from the image made here; use equal workers, or "
                    "delete that file"
                ) from None
    store.put(record_key(packed.task.number, packed.entry), encoded_record(packed.entry, record))
    return fresh


def encoded_record(entry: ShardEntry, record: Mapping[str, Any]) -> bytes:
    """A shard's record as JSON: its manifest entry, and the machine that made it."""
    data = {
        "key": entry.key,
        "count": entry.count,
        "bytes": entry.bytes,
        "sha256": entry.sha256,
        **record,
    }
    return (json.dumps(data, indent=2, sort_keys=True) + "\n").encode()
