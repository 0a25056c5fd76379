"""A worker that makes shards: the device computes while earlier images are packed and uploaded."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from threading import Semaphore
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from colddiff.data.sample_plan import SamplePlan, ShardTask
from colddiff.data.tars import image_members
from colddiff.errors import Stopped
from colddiff.evaluation.metrics import FeatureStatistics
from colddiff.image_maker import ImageMaker, Start
from colddiff.ports import FeatureExtractor, Store
from colddiff.types import ProgressCallback
from colddiff.verbs.generate.commit import (
    Members,
    Packed,
    commit_folder,
    commit_tar,
    packed_folder,
    packed_tar,
)
from colddiff.verbs.generate.statistics import (
    folder_of,
    merge_statistics,
    statistics_key,
    statistics_of,
    write_shard_statistics,
)

PENDING = 4
"""Largest number of batches that wait to be packed (back-pressure): if packing is slower than the
device, the device waits, instead of memory growing."""


@dataclass(frozen=True, slots=True)
class ShardReport:
    """Report of a committed shard: its content, and the time it took."""

    number: int
    count: int
    bytes: int
    sha256: str
    written: bool
    """False if it was stored already."""
    compute_s: float
    """Time on the device: start of its first batch to end of its last."""
    pack_s: float
    """Time from then until it was committed; the next shard is computed in parallel."""

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready; ``ShardReport(**data)`` is the inverse."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class PackedBatch:
    """Encoded images of one forward pass, and the statistics of each extractor's features."""

    members: Members
    statistics: tuple[FeatureStatistics, ...]


class ShardWorker:
    """Makes shards of a plan and commits them to a store; ``make`` may be called by two threads.

    Batches do not cross shards, and each has exactly ``batch_size`` rows: the last one is padded
    with its last image, so that a short shard's images are the first ones of the full shard, and
    a failing seed affects its own shard only. One thread owns the device and computes one shard at
    a time; with two calls in progress it computes one while the other is packed and uploaded.
    """

    def __init__(
        self,
        plan: SamplePlan,
        maker: ImageMaker,
        store: Store,
        *,
        record: Mapping[str, Any] | None = None,
        extractors: Sequence[FeatureExtractor] = (),
    ) -> None:
        self.plan, self.maker, self.store = plan, maker, store
        self._extractors = extractors
        self._record = dict(record or {})
        threads = (torch.set_num_threads, (plan.threads,))
        self._device = ThreadPoolExecutor(1, "device", *threads)
        self._packers = ThreadPoolExecutor(max(2, plan.threads), "packer", *threads)
        self._pending = Semaphore(PENDING)
        self._begun: dict[str, float] = {}
        self._abandoned = False
        self._described = {
            name: plan.content[name] for name in ("checkpoint", "sampler", "severities")
        } | {"symmetry_noise": plan.content["symmetry_noise"], "plan": plan.digest}

    def make(self, task: ShardTask) -> ShardReport:
        """Computes, packs and commits one shard; raises any error, Stopped after ``abandon``."""
        try:
            return self._measure(task) if task.measure else self._make(task)
        finally:
            self._begun.pop(task.key, None)

    def begun(self) -> dict[str, float]:
        """How many images are made of each shard that was begun, by its key."""
        return dict(self._begun)

    def abandon(self) -> None:
        """Ends what is computed at its next sampling step; a shard that is made is committed."""
        self._abandoned = True

    def _make(self, task: ShardTask) -> ShardReport:
        packing, compute_s = self._device.submit(self._compute, task).result()
        began = time.perf_counter()
        batches = [batch.result() for batch in packing]
        packed = self._packed(task, [member for batch in batches for member in batch.members])
        # Before the tar, so that no tar is committed without its statistics.
        for number, extractor in enumerate(self._extractors):
            total = merge_statistics(batch.statistics[number] for batch in batches)
            key = statistics_key(folder_of(extractor), task.number, packed.entry.sha256)
            self.store.put(key, total.to_bytes())
        written = self._commit(packed, {"compute_s": round(compute_s, 3)})
        return ShardReport(
            task.number,
            task.count,
            packed.entry.bytes,
            packed.entry.sha256,
            written,
            compute_s,
            time.perf_counter() - began,
        )

    def _measure(self, task: ShardTask) -> ShardReport:
        began = time.perf_counter()
        self._begun[task.key] = 0.0
        size = write_shard_statistics(self.store, self.plan, task, self._extractors)
        passed = time.perf_counter() - began
        return ShardReport(task.number, task.count, size, task.measure, False, 0.0, passed)

    def close(self) -> None:
        """Ends the threads once their current work is done."""
        self._device.shutdown()
        self._packers.shutdown()

    def _compute(self, task: ShardTask) -> tuple[list[Future[PackedBatch]], float]:
        began = time.perf_counter()
        self._count(task, 0.0)
        size, seeds = self.plan.batch_size, task.seeds
        batches = [seeds[row : row + size] for row in range(0, len(seeds), size)]
        packing: list[Future[PackedBatch]] = []
        following: Future[Start] | None = None
        for number, batch in enumerate(batches):
            start = following.result() if following else self._start(batch)
            more = number + 1 < len(batches)
            following = self._packers.submit(self._start, batches[number + 1]) if more else None
            pixels = self.maker.make(start, self._counting(task, number * size, len(batch)))
            self._pending.acquire()
            packing.append(self._packers.submit(self._encode, batch, pixels))
        return packing, time.perf_counter() - began

    def _counting(self, task: ShardTask, before: int, rows: int) -> ProgressCallback:
        """Counts the part of a batch that its sampling steps have made, ``before`` others."""

        def count(done: int, total: int) -> None:
            self._count(task, before + rows * done / total)

        return count

    def _count(self, task: ShardTask, images: float) -> None:
        if self._abandoned:
            raise Stopped(f"{task.key}: abandoned")
        self._begun[task.key] = images

    def _start(self, batch: range) -> Start:
        filled = [*batch, *[batch[-1]] * (self.plan.batch_size - len(batch))]
        return self.maker.start(filled)

    def _encode(self, seeds: range, pixels: NDArray[np.uint8]) -> PackedBatch:
        try:
            members: list[tuple[str, bytes]] = []
            for seed, image in zip(seeds, pixels, strict=False):
                described = {"seed": seed, **self._described}
                members += image_members(f"{seed:012d}", image.transpose(1, 2, 0), described)
            kept = pixels[: len(seeds)]
            found = tuple(statistics_of(extractor, kept) for extractor in self._extractors)
            return PackedBatch(members, found)
        finally:
            self._pending.release()

    def _packed(self, task: ShardTask, members: Members) -> Packed:
        pack = packed_folder if self.plan.writer == "folder" else packed_tar
        return pack(task, members)

    def _commit(self, packed: Packed, measured: Mapping[str, Any]) -> bool:
        commit = commit_folder if self.plan.writer == "folder" else commit_tar
        record = {
            **self._record,
            **measured,
            "first_seed": packed.task.first_seed,
            "plan": self.plan.digest,
            "time": time.time(),
        }
        return commit(self.store, packed, record)
