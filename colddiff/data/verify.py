"""Verifies shards against the sizes and sha256 in their manifest."""

from __future__ import annotations

import hashlib
import os
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from colddiff.errors import DataError, Missing
from colddiff.ports import Manifest, ShardEntry, Store
from colddiff.retry import Backoff
from colddiff.types import ProgressCallback

AT_ONCE = 4
REREAD, READINGS = Backoff(first_s=0.1, longest_s=0.4, factor=4.0), 3
"""Reads of a shard that does not match its manifest; the last result counts."""


@dataclass(frozen=True, slots=True)
class BadShard:
    """A shard that does not match its manifest, and why."""

    key: str
    problem: str


def read_shard(store: Store, entry: ShardEntry) -> bytes:
    """Read and verify one shard; raises DataError naming it, both hashes and what to do."""
    problem, data = _checked(store, entry)
    if problem is not None:
        raise DataError(
            f"{store.uri}/{entry.key}: {problem}; see `colddiff data verify {store.uri}`, and pack "
            "the data again"
        )
    return data


def verify(
    store: Store, manifest: Manifest, on_progress: ProgressCallback | None = None
) -> list[BadShard]:
    """All shards that do not match ``manifest``; ``on_progress`` counts bytes."""
    total, done, bad = sum(entry.bytes for entry in manifest.shards), 0, []
    with ThreadPoolExecutor(AT_ONCE) as pool:
        # The bytes are dropped at once, so only the shards being read are in memory.
        problems = pool.map(lambda entry: _checked(store, entry)[0], manifest.shards)
        for entry, problem in zip(manifest.shards, problems, strict=True):
            if problem is not None:
                bad.append(BadShard(entry.key, problem))
            done += entry.bytes
            if on_progress is not None:
                on_progress(done, total)
    return bad


def verify_some(store: Store, manifest: Manifest, budget_s: float) -> tuple[int, list[BadShard]]:
    """Check the sizes of all shards, and the hashes of as many as fit in ``budget_s`` seconds.

    Returns the number hashed (at least one) and the bad shards. Shards are hashed in a
    pseudo-random order derived from their own hashes, so that the sample is spread over the set.
    """
    started = time.monotonic()
    # The longest common prefix of the keys, which are not paths.
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
        return "is in the manifest but missing"
    return f"has {size} bytes, the manifest says {entry.bytes}"


def _checked(store: Store, entry: ShardEntry) -> tuple[str | None, bytes]:
    # Corrupted in transit or at rest; a second read decides.
    for _ in REREAD.attempts(READINGS):
        try:
            data = store.get(entry.key)
        except Missing:
            return "is in the manifest but missing", b""
        found = hashlib.sha256(data).hexdigest()
        if (len(data), found) == (entry.bytes, entry.sha256):
            return None, data
    return (
        f"has {len(data)} bytes with sha256 {found}, the manifest says {entry.bytes} bytes with "
        f"sha256 {entry.sha256}"
    ), data
