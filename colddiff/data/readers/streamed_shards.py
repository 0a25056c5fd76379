"""Streams a packed data set of any size through a bounded local cache."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from mmap import ACCESS_READ, mmap
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from colddiff.background import Prefetcher
from colddiff.data.manifests.paged import shard_counts
from colddiff.data.order import rank_slice
from colddiff.data.readers.lanes import LaneRange, Lanes, Place
from colddiff.data.readers.local_cache import LocalCache
from colddiff.data.readers.mapped_shards import (
    check_range,
    counted_samples,
    decode_samples,
    decoding_threads,
)
from colddiff.data.verify import read_shard
from colddiff.data.webdataset_tar import TarSample
from colddiff.ports import Batch, Manifest, Store
from colddiff.stores.local_store import LocalStore

BATCHES_AHEAD = 4
OPEN_SHARDS, SPARE_SHARDS = 256, 4
"""Shards open at once: at most, and beyond those that the lanes read now and next."""


@dataclass(frozen=True, slots=True)
class _OpenShard:
    tar: mmap
    samples: list[TarSample]


class StreamedShards:
    """``ShardSource`` that reads each shard when its lane reaches it.

    A shard is fetched whole, verified, and read in place; only requested images are decoded, so
    resuming at a step costs only that step's shards. Batches are prefetched by a background
    thread, and so are the shards of each lane's next window.
    """

    def __init__(self, store: Store, manifest: Manifest, cache: LocalCache) -> None:
        self.manifest = manifest
        self._store = store
        self._cache = cache
        self._open: OrderedDict[int, _OpenShard] = OrderedDict()
        self._opening: dict[int, threading.Lock] = {}
        self._lock = threading.Lock()
        self._in_need: dict[int, int] = {}
        self._ends = np.cumsum(shard_counts(manifest.shards))

    def batches(
        self, *, seed: int, global_batch_size: int, rank: int, world_size: int, start_step: int
    ) -> Iterator[Batch]:
        mine = rank_slice(global_batch_size, rank, world_size)
        lanes = Lanes(self.manifest, seed, global_batch_size)

        def generate() -> Iterator[Batch]:
            step = start_step
            decoders, fetchers = ThreadPoolExecutor(decoding_threads()), ThreadPoolExecutor(2)
            windows = _ShardPrefetcher(lanes, lambda shard: fetchers.submit(self._shard, shard))
            reader = id(windows)
            try:
                while True:
                    runs = lanes.runs(step, mine)
                    self._in_need[reader] = windows.follow(runs) + SPARE_SHARDS
                    places = [place for run in runs for place in lanes.places(run)]
                    positions = np.arange(mine.start, mine.stop, dtype=np.int64)
                    yield Batch(
                        self._stacked(decoders, places), positions + step * global_batch_size
                    )
                    step += 1
            finally:
                self._in_need.pop(reader, None)
                fetchers.shutdown(cancel_futures=True)
                decoders.shutdown(cancel_futures=True)

        def ahead() -> Iterator[Batch]:
            # Closed with this generator, so also by whoever drops the generator around it.
            with closing(Prefetcher(generate(), BATCHES_AHEAD, "shards")) as prefetched:
                yield from prefetched

        return ahead()

    def images(self, start: int, stop: int) -> NDArray[np.uint8] | NDArray[np.uint16]:
        check_range(self.manifest, start, stop)
        places = []
        for n in range(start, stop):
            shard = int(np.searchsorted(self._ends, n, side="right"))
            before = int(self._ends[shard - 1]) if shard else 0
            places.append(Place(shard, n - before))
        with ThreadPoolExecutor(decoding_threads()) as decoders:
            return self._stacked(decoders, places)

    def _stacked(self, decoders: ThreadPoolExecutor, places: list[Place]) -> NDArray[Any]:
        needed = sorted({place.shard for place in places})
        shards = dict(zip(needed, decoders.map(self._shard, needed), strict=True))
        samples = [
            (shards[place.shard].tar, shards[place.shard].samples[place.index], place.shard)
            for place in places
        ]
        return decode_samples(decoders, self.manifest, samples, self._where)

    def _where(self, shard: int) -> str:
        return f"{self._store.uri}/{self.manifest.shards[shard].key}"

    def _shard(self, number: int) -> _OpenShard:
        with self._lock:
            opened = self._open.get(number)
            if opened is not None:
                self._open.move_to_end(number)
                return opened
            opening = self._opening.setdefault(number, threading.Lock())
        with opening:
            with self._lock:
                if number in self._open:
                    return self._open[number]
            with self._file(number) as file:
                samples = counted_samples(file, self.manifest.shards[number], self._where(number))
                opened = _OpenShard(mmap(file.fileno(), 0, access=ACCESS_READ), samples)
            with self._lock:
                self._open[number] = opened
                self._opening.pop(number, None)
                while len(self._open) > self._most_open() or self._too_many_bytes():
                    # A reader that still uses the map keeps it alive until it is done.
                    self._open.popitem(last=False)
            return opened

    def _most_open(self) -> int:
        # Each is in memory as far as it was read; images of any shard may be asked for at any time.
        return min(OPEN_SHARDS, sum(list(self._in_need.values())) or OPEN_SHARDS)

    def _too_many_bytes(self) -> bool:
        # A map keeps its file's bytes on disk even after the cache has evicted the file.
        if isinstance(self._store, LocalStore) or len(self._open) < 2:
            return False
        return sum(len(shard.tar) for shard in self._open.values()) > self._cache.max_bytes

    def _file(self, number: int) -> BinaryIO:
        entry = self.manifest.shards[number]
        if isinstance(self._store, LocalStore):
            # Already on a local disk: verified, but not copied.
            read_shard(self._store, entry)
            return self._store.path(entry.key).open("rb")

        def fetch(file: BinaryIO) -> None:
            file.write(read_shard(self._store, entry))

        return self._cache.open(f"shards/{entry.sha256}", entry.bytes, fetch)


class _ShardPrefetcher:
    """Fetches the shards of a lane's next window, once, when the lane enters a window."""

    def __init__(self, lanes: Lanes, fetch: Callable[[int], object]) -> None:
        self._lanes = lanes
        self._fetch = fetch
        self._windows: dict[int, tuple[int, int]] = {}
        self._shards: dict[int, int] = {}

    def follow(self, runs: list[LaneRange]) -> int:
        """Fetches what comes next; the number of shards in the windows of now and next."""
        for run in runs:
            epoch, window = now = (run.epoch, (run.stop - 1) // self._lanes.window)
            if self._windows.get(run.lane) != now:
                self._windows[run.lane] = now
                following = self._lanes.window_shards(epoch, run.lane, window + 1)
                here = range(run.start // self._lanes.window, window + 1)
                read = (self._lanes.window_shards(epoch, run.lane, w) for w in here)
                self._shards[run.lane] = sum(map(len, read)) + len(following)
                for shard in following:
                    self._fetch(shard)
        return sum(self._shards.values())
