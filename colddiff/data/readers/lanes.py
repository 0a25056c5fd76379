"""Order of a set too large to cache decoded: canonical lanes, each with its own shards.

An epoch is one sequence: the shards in that epoch's order, each shard's images in sequence. It is
cut into ``num_lanes`` equal parts, the lanes; each lane is shuffled window by window. Position q of
the epoch belongs to lane q % num_lanes, and a step's global batch is ordered lane by lane. A
contiguous slice of the batch, such as a rank's, therefore needs only a few lanes, which read a few
shards at a time, and everything follows from (manifest, seed, step) by arithmetic.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from colddiff.data.manifests.paged import shard_counts
from colddiff.data.order import shuffled
from colddiff.ports import Manifest

MAX_LANES = 32
WINDOW = 2048
WINDOW_SHARDS = 2


@dataclass(frozen=True, slots=True)
class LaneRange:
    """Consecutive images ``start``..``stop`` - 1 of one lane in one epoch."""

    epoch: int
    lane: int
    start: int
    stop: int


@dataclass(frozen=True, slots=True)
class Place:
    """Where an image is stored: its shard's index in the manifest, its index in the shard."""

    shard: int
    index: int


class Lanes:
    """The lanes of one data set for one seed and global batch size."""

    def __init__(self, manifest: Manifest, seed: int, global_batch_size: int) -> None:
        self._seed = seed
        self._batch = global_batch_size
        self._count = manifest.count
        self._purpose = f"data/lanes/{manifest.digest}"
        self._sizes = shard_counts(manifest.shards)
        self.num_lanes = lane_count(global_batch_size, len(manifest.shards))
        # Few shards at a time, however small: each is an open file.
        self.window = max(1, min(WINDOW, WINDOW_SHARDS * self._count // len(self._sizes)))
        self._shuffles: OrderedDict[tuple[int, int, int], NDArray[np.int64]] = OrderedDict()
        self._layouts: OrderedDict[int, tuple[NDArray[np.int64], NDArray[np.int64]]] = OrderedDict()

    def runs(self, step: int, mine: slice) -> list[LaneRange]:
        """The slice ``mine`` of the global batch of ``step``, in batch order."""
        found, passed = [], 0
        for run in self._batch_runs(step):
            length = run.stop - run.start
            low, high = max(mine.start - passed, 0), min(mine.stop - passed, length)
            if low < high:
                found.append(LaneRange(run.epoch, run.lane, run.start + low, run.start + high))
            passed += length
        return found

    def places(self, run: LaneRange) -> list[Place]:
        """Where the images of ``run`` are stored."""
        order, starts = self._layout(run.epoch)
        length = self._length(run.lane)
        first = self._first(run.lane)
        found = []
        for i in range(run.start, run.stop):
            window, offset = divmod(i, self.window)
            begin = window * self.window
            shuffle = self._shuffle(run.epoch, run.lane, window, min(self.window, length - begin))
            at = first + begin + int(shuffle[offset])
            slot = int(np.searchsorted(starts, at, side="right")) - 1
            found.append(Place(int(order[slot]), at - int(starts[slot])))
        return found

    def window_shards(self, epoch: int, lane: int, window: int) -> list[int]:
        """Shards that one window of a lane reads; past the lane's end, those of its next epoch."""
        if window * self.window >= self._length(lane):
            epoch, window = epoch + 1, 0
        order, starts = self._layout(epoch)
        begin = self._first(lane) + window * self.window
        end = min(begin + self.window, self._first(lane) + self._length(lane))
        low = int(np.searchsorted(starts, begin, side="right")) - 1
        high = int(np.searchsorted(starts, end - 1, side="right"))
        return [int(shard) for shard in order[low:high]]

    def _batch_runs(self, step: int) -> Iterator[LaneRange]:
        position, end = step * self._batch, (step + 1) * self._batch
        stretches = []
        while position < end:
            epoch, begin = divmod(position, self._count)
            stop = min(begin + end - position, self._count)
            stretches.append((epoch, begin, stop))
            position += stop - begin
        # Lane by lane even if an epoch ends within the step, so that each rank keeps its lanes.
        for lane in range(self.num_lanes):
            for epoch, begin, stop in stretches:
                run = LaneRange(epoch, lane, self._within(begin, lane), self._within(stop, lane))
                if run.start < run.stop:
                    yield run

    def _within(self, places: int, lane: int) -> int:
        """How many of the first ``places`` positions of an epoch belong to ``lane``."""
        return max(0, (places - lane + self.num_lanes - 1) // self.num_lanes)

    def _length(self, lane: int) -> int:
        return self._within(self._count, lane)

    def _first(self, lane: int) -> int:
        base, longer = divmod(self._count, self.num_lanes)
        return lane * base + min(lane, longer)

    def _layout(self, epoch: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The shards in the order of ``epoch``, and the position where each begins."""
        if epoch not in self._layouts:
            order = shuffled(self._seed, self._purpose, epoch, len(self._sizes))
            ends = np.cumsum(self._sizes[order])
            self._layouts[epoch] = (order, np.concatenate([[0], ends[:-1]]))
            while len(self._layouts) > 3:
                self._layouts.popitem(last=False)
        return self._layouts[epoch]

    def _shuffle(self, epoch: int, lane: int, window: int, size: int) -> NDArray[np.int64]:
        key = (epoch, lane, window)
        if key not in self._shuffles:
            purpose = f"{self._purpose}/{epoch}/{lane}"
            self._shuffles[key] = shuffled(self._seed, purpose, window, size)
            while len(self._shuffles) > 2 * self.num_lanes:
                self._shuffles.popitem(last=False)
        return self._shuffles[key]


def lane_count(global_batch_size: int, num_shards: int) -> int:
    """Number of lanes: a divisor of the batch size, so that each lane's share is constant.

    Depends on nothing that can change between submissions of a job. For batch sizes without a
    useful divisor, a lane's share varies by one image from step to step.
    """
    most = min(MAX_LANES, num_shards)
    divisor = max(n for n in range(1, most + 1) if global_batch_size % n == 0)
    return divisor if divisor >= min(8, most) else min(16, most)
