"""An evaluation split into groups of batches for workers, the same groups whatever the workers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

NUM_GROUPS = 16
"""Enough for a handful of workers, few enough that feature covariances are seldom sent."""


class BatchedEvaluation(Protocol):
    """An evaluation that splits into batches; per-batch sums can be computed on any worker and
    merged.
    """

    @property
    def num_images(self) -> int: ...

    def batches(self) -> list[range]: ...

    def sum_batch(self, positions: range) -> Any:
        """Sums over the images at ``positions``; their ``merge`` adds disjoint sets of images."""


@dataclass(frozen=True, slots=True)
class BatchGroup:
    """Consecutive batches of an evaluation, summed in order by one worker."""

    number: int
    batches: tuple[range, ...]

    @property
    def key(self) -> str:
        """Its name in messages."""
        return f"batch group {self.number}"

    def sums(
        self, evaluation: BatchedEvaluation, on_batch: Callable[[int], None] | None = None
    ) -> Any:
        """Merged sums of its batches; ``on_batch(num_images)`` is called after each batch."""
        found = []
        for positions in self.batches:
            found.append(evaluation.sum_batch(positions))
            if len(found) == 2:
                found = [found[0].merge(found[1])]
            if on_batch is not None:
                on_batch(len(positions))
        return found[0]

    @property
    def num_images(self) -> int:
        """Number of images in its batches."""
        return sum(map(len, self.batches))


def group_batches(evaluation: BatchedEvaluation) -> list[BatchGroup]:
    """At most ``NUM_GROUPS`` groups, a function of the batches alone and not of the workers."""
    batches = evaluation.batches()
    count = min(NUM_GROUPS, len(batches))
    ends = [len(batches) * (i + 1) // count for i in range(count)]
    starts = [0, *ends[:-1]]
    return [
        BatchGroup(number, tuple(batches[start:end]))
        for number, (start, end) in enumerate(zip(starts, ends, strict=True))
    ]


def merge_sums(sums: Sequence[Any]) -> Any:
    """The sums over all groups, merged in the order given; at least one."""
    total = sums[0]
    for more in sums[1:]:
        total = total.merge(more)
    return total
