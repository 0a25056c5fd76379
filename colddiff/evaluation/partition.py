"""An evaluation in parts that workers share: always the same ones, so that sums add up the same."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

NUM_PARTS = 16
"""Enough for a handful of workers, few enough that features' covariances are sent seldom."""


class Measured(Protocol):
    """Something whose batches are tallied anywhere, and whose tallies merge."""

    @property
    def num_images(self) -> int: ...

    def batches(self) -> list[range]: ...

    def tally(self, positions: range) -> Any: ...


@dataclass(frozen=True, slots=True)
class Part:
    """Neighbouring batches, tallied one after the other."""

    number: int
    batches: tuple[range, ...]

    @property
    def key(self) -> str:
        """Its name in messages."""
        return f"part {self.number}"

    def tally(self, measured: Measured, on_batch: Callable[[int], None] | None = None) -> Any:
        """The tally over its batches; ``on_batch`` hears how many images each of them held."""
        tallies = []
        for positions in self.batches:
            tallies.append(measured.tally(positions))
            if len(tallies) == 2:
                tallies = [tallies[0].merge(tallies[1])]
            if on_batch is not None:
                on_batch(len(positions))
        return tallies[0]

    @property
    def num_images(self) -> int:
        """Images in it."""
        return sum(map(len, self.batches))


def parts_of(measured: Measured) -> list[Part]:
    """At most ``NUM_PARTS`` parts, a function of the batches alone and not of the workers."""
    batches = measured.batches()
    count = min(NUM_PARTS, len(batches))
    ends = [len(batches) * (i + 1) // count for i in range(count)]
    starts = [0, *ends[:-1]]
    return [
        Part(number, tuple(batches[start:end]))
        for number, (start, end) in enumerate(zip(starts, ends, strict=True))
    ]


def merge_all(tallies: Sequence[Any]) -> Any:
    """The tally over all parts, merged in their order."""
    total = tallies[0]
    for tally in tallies[1:]:
        total = total.merge(tally)
    return total
