"""Verifies shards against the sizes and sha256 in their manifest."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice

from colddiff.data.manifests.paged import shard_bytes
from colddiff.data.manifests.plain import KEY, DigestOfShards
from colddiff.data.order import shuffled
from colddiff.errors import DataError, Missing
from colddiff.ports import Manifest, ShardEntry, Store
from colddiff.retry import Backoff
from colddiff.types import ProgressCallback

AT_ONCE, AHEAD = 4, 64
"""Shards that are read at once, and that are put before the readers."""
MOST_LISTED = 100_000
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
    store: Store,
    manifest: Manifest,
    on_progress: ProgressCallback | None = None,
    *,
    only: Sequence[int] | None = None,
) -> list[BadShard]:
    """All shards that do not match ``manifest``; ``on_progress`` counts bytes.

    ``only``: the numbers of the shards to read. Else the manifest is verified too: the digest in
    ``manifest.json`` must be that of the shards that its pages list.
    """
    shards, bad = manifest.shards, []
    entries: Iterator[ShardEntry] = iter(shards) if only is None else (shards[n] for n in only)
    total = shard_bytes(shards) if only is None else sum(shards[n].bytes for n in only)
    done, hashed = 0, DigestOfShards(manifest.image)
    with ThreadPoolExecutor(AT_ONCE) as pool:
        # A few at a time, for a set of a million; their bytes are dropped at once.
        while some := list(islice(entries, AHEAD)):
            problems = pool.map(lambda entry: _checked(store, entry)[0], some)
            for entry, problem in zip(some, problems, strict=True):
                if problem is not None:
                    bad.append(BadShard(entry.key, problem))
                hashed.add(entry.count, entry.sha256)
                done += entry.bytes
                if on_progress is not None:
                    on_progress(done, total)
    if only is None and not bad and hashed.hexdigest() != manifest.digest:
        bad.append(BadShard(KEY, "its digest is not that of the shards in its pages"))
    return bad


def drawn_shards(manifest: Manifest, count: int, seed: int) -> list[int]:
    """Numbers of ``count`` shards (all, if there are no more), drawn with ``seed``, ascending."""
    return sorted(drawn_order(manifest, seed)[:count])


def drawn_order(manifest: Manifest, seed: int) -> list[int]:
    """Numbers of all shards in the order in which a sample takes them."""
    order: list[int] = shuffled(
        seed, f"data/verify/{manifest.digest}", 0, len(manifest.shards)
    ).tolist()
    return order


def verify_some(store: Store, manifest: Manifest, budget_s: float) -> tuple[int, list[BadShard]]:
    """Check the sizes of all shards, and the hashes of as many as fit in ``budget_s`` seconds.

    Returns the number hashed (at least one) and the bad shards. Shards are hashed in a
    pseudo-random order, so that the sample is spread over the set. Of a set of more than
    ``MOST_LISTED`` shards, whose listing would take minutes, only those sizes are checked.
    """
    started = time.monotonic()
    bad = _other_sizes(store, manifest) if len(manifest.shards) <= MOST_LISTED else []
    hashed = 0
    for entry in () if bad else _spread(manifest):
        problem, _ = _checked(store, entry)
        if problem is not None:
            bad.append(BadShard(entry.key, problem))
        hashed += 1
        if time.monotonic() - started > budget_s:
            break
    return hashed, bad


def _other_sizes(store: Store, manifest: Manifest) -> list[BadShard]:
    # The longest common prefix of the keys, which are not paths.
    prefix = os.path.commonprefix([entry.key for entry in manifest.shards])  # noqa: RUF071
    sizes = {stored.key: stored.size for stored in store.list(prefix)}
    return [
        BadShard(entry.key, _other_size(entry, sizes.get(entry.key)))
        for entry in manifest.shards
        if sizes.get(entry.key) != entry.bytes
    ]


def _spread(manifest: Manifest) -> Iterator[ShardEntry]:
    """All shards in a pseudo-random order that is a function of the set."""
    for n in drawn_order(manifest, 0):
        yield manifest.shards[n]


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
