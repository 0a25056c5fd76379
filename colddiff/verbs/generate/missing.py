"""The missing shards of a plan, found by listing, and counts of the committed ones."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from colddiff.data.sample_plan import SamplePlan, ShardTask
from colddiff.data.sample_set import BLOCK, num_blocks, stored_shards
from colddiff.ports import Store
from colddiff.verbs.generate.statistics import shards_with_statistics
from colddiff.verbs.generate.worker import ShardReport


@dataclass(slots=True)
class ShardCounts:
    """Progress of a job. ``images`` and ``shards`` count all that is committed, by any attempt."""

    images: int = 0
    shards: int = 0
    made: int = 0
    """Images made in this attempt."""

    def committed(self, task: ShardTask, report: ShardReport) -> None:
        """Counts a shard that a worker committed, or found already committed."""
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
    """Yields the shards of the plan that are missing or too short; counts the others.

    ``statistics``: folders in which each shard must have statistics; for a shard that lacks them
    only those are computed.

    Memory and start-up time do not depend on the number of shards: numbers are computed, and
    existing shards are listed one block at a time, when the queue reaches it.
    """
    num_shards = plan.num_shards(num_samples)
    for block in range(num_blocks(num_shards)):
        found = stored_shards(store, plan.writer, block)
        complete = shards_with_statistics(store, statistics, block) if found else set()
        first = block * BLOCK
        for number in range(first, min(first + BLOCK, num_shards)):
            task = plan.task(number, num_samples)
            stored = found.get(number)
            if stored is None or stored.count < task.count:
                yield task
            elif statistics and (number, stored.sha256) not in complete:
                yield replace(task, measure=stored.sha256)
            else:
                counts.images += task.count
                counts.shards += 1
