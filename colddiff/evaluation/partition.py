"""An evaluation split into groups of batches for workers, the same groups whatever the workers."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import Any, Protocol

import torch

from colddiff.background import in_context

NUM_GROUPS = 16
"""Enough for a handful of workers, few enough that feature covariances are seldom sent."""
MOST_AT_ONCE = 4
SMALL_BATCH = 4 * 2**20
"""Values of a batch below which batches are summed at once on a CPU: the cores are not all busy
with one of them. Of larger ones, one at a time fills the cores and less memory."""


class BatchInParts(Protocol):
    """A batch whose ``parts``, each without an argument, may be done at once in any order."""

    @property
    def parts(self) -> Sequence[Callable[[], Any]]: ...

    def sums(self, found: Sequence[Any], /) -> Any:
        """The sums over the batch, from what the parts returned, in their order."""


@dataclass(frozen=True, slots=True)
class BatchInOnePart:
    """A batch that is not divided: ``work`` returns its sums."""

    work: Callable[[], Any]

    @property
    def parts(self) -> Sequence[Callable[[], Any]]:
        """``work`` alone."""
        return [self.work]

    def sums(self, found: Sequence[Any], /) -> Any:
        """What ``work`` returned."""
        (sums,) = found
        return sums


class BatchedEvaluation(Protocol):
    """An evaluation that splits into batches; per-batch sums can be computed on any worker and
    merged.
    """

    @property
    def num_images(self) -> int: ...

    @property
    def at_once(self) -> int:
        """How many parts of batches this process may do at once, in threads; 1 or more."""

    def batches(self) -> list[range]: ...

    def batch(self, positions: range) -> BatchInParts:
        """The images at ``positions``; ``merge`` of its sums adds disjoint sets of images."""


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
        return self.merged(batch_sums(evaluation, self.batches), on_batch)

    def merged(
        self, sums: Iterator[tuple[range, Any]], on_batch: Callable[[int], None] | None
    ) -> Any:
        """The next of ``sums``, one for each of its batches, merged in order."""
        total: Any = None
        for positions, more in islice(sums, len(self.batches)):
            total = more if total is None else total.merge(more)
            if on_batch is not None:
                on_batch(len(positions))
        return total

    @property
    def num_images(self) -> int:
        """Number of images in its batches."""
        return sum(map(len, self.batches))


def threads_for(values: int, device: torch.device | str, cores: int | None) -> int:
    """``BatchedEvaluation.at_once`` for batches of so many values (B x C x H x W) on ``device``.

    ``cores``: how many this process may use; None for as many as torch has threads.
    """
    if torch.device(device).type != "cpu" or values >= SMALL_BATCH:
        return 1
    return min(MOST_AT_ONCE, torch.get_num_threads() if cores is None else cores)


def sum_batch(batch: BatchInParts) -> Any:
    """The sums over ``batch``, one part after the other."""
    return batch.sums([part() for part in batch.parts])


def batch_sums(
    evaluation: BatchedEvaluation, batches: Sequence[range]
) -> Iterator[tuple[range, Any]]:
    """Each batch with its sums, in order; ``evaluation.at_once`` parts are computed at once.

    Parts and not batches: with few batches, or one that is smaller, cores would be idle at the end.
    Torch's threads are shared out among them meanwhile; a batch's sums are those of a process with
    so many threads as a part gets. Raises what the first failing batch raises.
    """
    at_once = min(evaluation.at_once, len(batches))
    if at_once <= 1:
        yield from ((positions, sum_batch(evaluation.batch(positions))) for positions in batches)
        return
    with _threads_each(at_once), ThreadPoolExecutor(at_once, "batches") as pool:
        begun: deque[_Begun] = deque()
        try:
            for positions in batches:
                begun.append(_Begun(positions, evaluation.batch(positions), pool))
                if len(begun) == at_once:
                    yield begun.popleft().ended()
            while begun:
                yield begun.popleft().ended()
        finally:
            # Those not begun: whoever reads has enough, or a batch has failed.
            pool.shutdown(wait=True, cancel_futures=True)


class _Begun:
    """A batch whose parts are handed to ``pool``."""

    def __init__(self, positions: range, batch: BatchInParts, pool: ThreadPoolExecutor) -> None:
        self._positions, self._batch = positions, batch
        self._parts = [pool.submit(in_context(part)) for part in batch.parts]

    def ended(self) -> tuple[range, Any]:
        """Waits for all parts; the batch with its sums."""
        return self._positions, self._batch.sums([part.result() for part in self._parts])


@contextmanager
def _threads_each(count: int) -> Iterator[None]:
    """Within ``with``, new threads get their share of torch's threads among ``count`` of them."""
    before = torch.get_num_threads()
    torch.set_num_threads(max(1, before // count))
    try:
        yield
    finally:
        torch.set_num_threads(before)


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


def sum_all(evaluation: BatchedEvaluation, on_batch: Callable[[int], None] | None = None) -> Any:
    """The sums over all batches, merged as those of workers are: by groups, then in their order."""
    groups = group_batches(evaluation)
    sums = batch_sums(evaluation, [batch for group in groups for batch in group.batches])
    return merge_sums([group.merged(sums, on_batch) for group in groups])


def merge_sums(sums: Sequence[Any]) -> Any:
    """The sums over all groups, merged in the order given; at least one."""
    total = sums[0]
    for more in sums[1:]:
        total = total.merge(more)
    return total
