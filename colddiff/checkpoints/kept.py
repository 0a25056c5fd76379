"""Which checkpoints of a job are kept: decided here for the writer, and for `colddiff gc`."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence

from colddiff.jobs.folder import JobFolder

COMMIT = "checkpoint.json"
"""The last object of a checkpoint, which commits it."""
STEP = re.compile(r"step_(\d{8,})/")
"""Start of an object's key below a job's checkpoints."""


def beyond_kept(folder: JobFolder, steps: Sequence[int], keep: int, every: int | None) -> list[int]:
    """Of the committed ``steps``, those that are not kept, ascending.

    Kept are the newest ``keep``, the best one, and those still to be evaluated (``every``: at
    multiples of this step; None for none).
    """
    older = sorted(steps)[: max(0, len(steps) - keep)]
    if not older:
        return []
    best = folder.best(set(steps))
    spared = {*due_steps(steps, every, folder.evaluated_steps())}
    spared |= set() if best is None else {best.step}
    return [step for step in older if step not in spared]


def due_steps(steps: Collection[int], every: int | None, evaluated: Collection[int]) -> list[int]:
    """Committed steps at multiples of ``every`` that were not evaluated yet."""
    if every is None:
        return []
    return [step for step in steps if step % every == 0 and step not in evaluated]
