"""Committing a shard exactly once: by one conditional write, or by finding the same bytes there."""

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
    """A shard is stored already, with bytes that this machine does not make."""


@dataclass(frozen=True, slots=True)
class Packed:
    """A shard's bytes, and what its manifest will say of it."""

    task: ShardTask
    entry: ShardEntry
    members: Members
    data: bytes


def packed_tar(task: ShardTask, members: Members) -> Packed:
    """The shard as a tar: equal members make equal bytes."""
    data = write_tar(members)
    return Packed(task, shard_entry(task.key, task.count, data), members, data)


def packed_folder(task: ShardTask, members: Members) -> Packed:
    """The shard as loose PNG files; its hash is over them all, in order."""
    images = [(name, content) for name, content in members if name.endswith(".png")]
    data = b"".join(content for _, content in images)
    return Packed(task, shard_entry(task.key, task.count, data), images, data)


def commit_tar(store: Store, packed: Packed, record: Mapping[str, Any]) -> bool:
    """Makes the tar part of the set; False where the same images were there already.

    A longer shard whose first members are ours stays. A shorter one whose members are our first
    ones is replaced: the end of a smaller set, the only object that ever is.

    Raises:
        OtherBytes: what is there is neither.
        StoreError.
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
            continue  # deleted meanwhile, to be made again
        if stored == packed.data:
            return False
        there, ours = read_tar(stored), list(packed.members)
        if there[: len(ours)] == ours:
            return False
        if there and ours[: len(there)] == there:
            store.put(packed.entry.key, packed.data)
            return True
        raise OtherBytes(
            f"{store.uri}/{packed.entry.key}: stored bytes have sha256 "
            f"{hashlib.sha256(stored).hexdigest()[:12]}..., made here "
            f"{packed.entry.sha256[:12]}...: another kind of machine or library version made them "
            f"(its record in {store.uri}/records says which); use equal workers, or delete that tar"
        )
    raise ColddiffError(f"{store.uri}/{packed.entry.key}: comes and goes; is it being deleted?")


def commit_folder(store: Store, packed: Packed, record: Mapping[str, Any]) -> bool:
    """Writes the PNG files side by side and then the record, which commits them."""
    fresh = False
    for name, content in packed.members:
        try:
            store.put_new(name, content)
            fresh = True
        except Exists:
            if store.get(name) != content:
                raise OtherBytes(
                    f"{store.uri}/{name}: holds another image than is made here; use equal "
                    "workers, or delete that file"
                ) from None
    store.put(record_key(packed.task.number, packed.entry), encoded_record(packed.entry, record))
    return fresh


def encoded_record(entry: ShardEntry, record: Mapping[str, Any]) -> bytes:
    """What is kept beside a shard: its manifest entry, and the machine that made it."""
    data = {
        "key": entry.key,
        "count": entry.count,
        "bytes": entry.bytes,
        "sha256": entry.sha256,
        **record,
    }
    return (json.dumps(data, indent=2, sort_keys=True) + "\n").encode()
