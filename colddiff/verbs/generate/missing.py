"""Which shards of a plan are still missing, found by listing, and how many there are already."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from colddiff.data.sample_plan import SamplePlan, ShardTask
from colddiff.data.sample_set import BLOCK, num_blocks, stored_shards
from colddiff.ports import Store
from colddiff.verbs.generate.statistics import measured_shards
from colddiff.verbs.generate.worker import ShardReport


@dataclass(slots=True)
class ShardCounts:
    """How far a job is. ``images`` and ``shards`` count what is committed, whoever made it."""

    images: int = 0
    shards: int = 0
    made: int = 0
    """Images made in this attempt."""

    def committed(self, task: ShardTask, report: ShardReport) -> None:
        """Counts a shard that a worker has committed, or found committed."""
        self.images += task.count
        self.made += task.count * report.written
        self.shards += 1


def missing_shards(
    store: Store,
    plan: SamplePlan,
    num_samples: int,
    counts: ShardCounts,
    statistics: Sequence[str] = (),
) -> Iterator[ShardTask]:
    """The shards of the plan that are not there, or too short; those there are counted.

    ``statistics``: folders where each must have its statistics; one that lacks them is measured.

    Memory and time do not depend on how many there are in all: numbers are arithmetic, and what
    exists is listed a block at a time, when the queue gets there.
    """
    num_shards = plan.num_shards(num_samples)
    for block in range(num_blocks(num_shards)):
        found = stored_shards(store, plan.writer, block)
        measured = measured_shards(store, statistics, block) if found else set()
        first = block * BLOCK
        for number in range(first, min(first + BLOCK, num_shards)):
            task = plan.task(number, num_samples)
            there = found.get(number)
            if there is None or there.count < task.count:
                yield task
            elif statistics and (number, there.sha256) not in measured:
                yield replace(task, measure=there.sha256)
            else:
                counts.images += task.count
                counts.shards += 1
