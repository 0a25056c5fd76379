"""Shards against their manifest: every byte that is used was promised by a hash."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from colddiff.errors import DataError, Missing
from colddiff.ports import Manifest, ShardEntry, Store
from colddiff.retry import Backoff

AT_ONCE = 4
REREAD, READINGS = Backoff(first_s=0.1, longest_s=0.4, factor=4.0), 3
"""Of a shard that is not what its manifest says; the last reading counts."""


@dataclass(frozen=True, slots=True)
class BadShard:
    """A shard that is not what its manifest says, and why."""

    key: str
    problem: str


def read_shard(store: Store, entry: ShardEntry) -> bytes:
    """The verified bytes of one shard; raises DataError naming it, both hashes and the way out."""
    problem, data = _checked(store, entry)
    if problem is not None:
        raise DataError(
            f"{store.uri}/{entry.key}: {problem}; see `colddiff data verify {store.uri}`, and pack "
            "the data again"
        )
    return data


def verify(
    store: Store, manifest: Manifest, on_progress: Callable[[int, int], None] | None = None
) -> list[BadShard]:
    """Every shard that does not match ``manifest``; ``on_progress`` gets bytes read and in all."""
    total, done, bad = sum(entry.bytes for entry in manifest.shards), 0, []
    with ThreadPoolExecutor(AT_ONCE) as pool:
        # The bytes are dropped at once: only so many shards are in memory as are being read.
        problems = pool.map(lambda entry: _checked(store, entry)[0], manifest.shards)
        for entry, problem in zip(manifest.shards, problems, strict=True):
            if problem is not None:
                bad.append(BadShard(entry.key, problem))
            done += entry.bytes
            if on_progress is not None:
                on_progress(done, total)
    return bad


def verify_some(store: Store, manifest: Manifest, budget_s: float) -> tuple[int, list[BadShard]]:
    """Sizes of all shards, and hashes of as many as are read within ``budget_s`` seconds.

    Returns how many were hashed (one at least) and the bad ones. The order is drawn by the
    shards' own hashes, so that those of a large set are spread over it.
    """
    started = time.monotonic()
    # Of keys, which are no paths: the longest start that all of them share.
    prefix = os.path.commonprefix([entry.key for entry in manifest.shards])  # noqa: RUF071
    sizes = {stored.key: stored.size for stored in store.list(prefix)}
    bad = [
        BadShard(entry.key, _other_size(entry, sizes.get(entry.key)))
        for entry in manifest.shards
        if sizes.get(entry.key) != entry.bytes
    ]
    drawn = sorted(manifest.shards, key=lambda e: hashlib.sha256(e.sha256.encode()).digest())
    hashed = 0
    for entry in [] if bad else drawn:
        problem, _ = _checked(store, entry)
        if problem is not None:
            bad.append(BadShard(entry.key, problem))
        hashed += 1
        if time.monotonic() - started > budget_s:
            break
    return hashed, bad


def _other_size(entry: ShardEntry, size: int | None) -> str:
    if size is None:
        return "is in the manifest but not there"
    return f"has {size} bytes, the manifest says {entry.bytes}"


def _checked(store: Store, entry: ShardEntry) -> tuple[str | None, bytes]:
    # Damaged on the way, or for good: reading it again tells.
    for _ in REREAD.attempts(READINGS):
        try:
            data = store.get(entry.key)
        except Missing:
            return "is in the manifest but not there", b""
        found = hashlib.sha256(data).hexdigest()
        if (len(data), found) == (entry.bytes, entry.sha256):
            return None, data
    return (
        f"has {len(data)} bytes with sha256 {found}, the manifest says {entry.bytes} bytes with "
        f"sha256 {entry.sha256}"
    ), data
