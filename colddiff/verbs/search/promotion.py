"""Which trial is trained next and how far: asynchronous successive halving by promotion.

Li et al. 2018, "A System for Massively Parallel Hyperparameter Tuning", algorithm 2: at each rung
the best ``1 / reduction`` of the trials measured there are promoted to the next one. Two additions:
trial 0, the base, always goes to the end, and a rung that no further trial can reach promotes at
least its best trial, so that a small search finishes something.

A trial's values are a mapping from rung (optimizer step) to metric. Every decision is a function
of these values and of what is running, so a search that was killed goes on as it would have.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

BASE = 0
"""Number of the trial that is the base job itself."""
REDUCTION = 4
"""One of so many trials is promoted at each rung."""

Values: TypeAlias = Mapping[int, float]


@dataclass(frozen=True, slots=True)
class New:
    """A new trial is next."""


@dataclass(frozen=True, slots=True)
class Wait:
    """Nothing can be decided before something that runs has ended."""


@dataclass(frozen=True, slots=True)
class NoneLeft:
    """No segment is left: the search is finished."""


Decision: TypeAlias = tuple[int, int] | New | Wait | NoneLeft
"""A segment (trial, rung), or one of ``New``, ``Wait``, ``NoneLeft``."""


def next_segment(
    values: Sequence[Values],
    running: Collection[tuple[int, int]],
    failed: Collection[int],
    rungs: Sequence[int],
    num_trials: int,
    *,
    reduction: int = REDUCTION,
    lower_is_better: bool = True,
    steps: Sequence[int] = (),
) -> Decision:
    """The segment to start when a worker is free, by promotion.

    Args:
        values: of each trial asked so far, by number; empty for one without an evaluation.
        running: segments (trial, rung) in progress.
        failed: trials that are not continued.
        rungs: optimizer steps, rising; the last one is the end. One rung is no promotion at all:
            every trial goes straight to the end (``scheduler: none``).
        num_trials: how many trials to ask for; a larger one extends a finished search.
        steps: by trial, how far it was trained. A segment that was interrupted half way is
            continued before anything else is decided.
    """
    ladder = _Ladder(values, running, failed, rungs, steps, lower_is_better)
    started = ladder.interrupted()
    if started is not None:
        return started, ladder.next_rung(started)
    complete = len(values) >= num_trials
    for trial in reversed(ladder.promotable(reduction, complete)):
        return trial, ladder.next_rung(trial)
    if not complete:
        return New()
    return Wait() if running else NoneLeft()


def passed_over(
    values: Sequence[Values],
    rungs: Sequence[int],
    trial: int,
    *,
    failed: Collection[int] = (),
    lower_is_better: bool = True,
) -> str:
    """Why a trial did not go on, such as "at step 60: 5th of 12, best 3 went on".

    Empty for a trial that was never evaluated, or was evaluated at the last rung. Trials that
    ``failed`` before the next rung count as measured, and not as passed over.
    """
    ladder = _Ladder(values, (), failed, rungs, (), lower_is_better)
    height = ladder.reached(trial)
    if height < 0 or height == len(rungs) - 1:
        return ""
    ranking = ladder.ranking(height)
    went_on = {other for other in ranking if ladder.reached(other) > height}
    better = sum(ladder.score(other, height) < ladder.score(trial, height) for other in ranking)
    where = f"at step {rungs[height]}: {ordinal(better + 1)} of {len(ranking)}"
    if not went_on:
        return f"{where}, none went on"
    able = [other for other in ranking if other in went_on or other not in failed]
    best = 0
    while able[best] in went_on:
        best += 1
    parts = [f"best {best}"] if best > 1 else ["the best"] if best else []
    earlier = went_on - set(able[:best])
    if BASE in earlier:
        parts.append("the base")
    if count := len(earlier - {BASE}):
        parts.append(f"{count} promoted earlier" if parts else f"{count}")
    return f"{where}, {' and '.join(parts)} went on"


def ordinal(number: int) -> str:
    """``1st``, ``2nd``, ``3rd``, ``4th``, ``11th``."""
    ending = "th" if number % 100 in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(number % 10)
    return f"{number}{ending or 'th'}"


@dataclass(frozen=True, slots=True)
class _Ladder:
    """The trials on their rungs; rungs by index, from 0."""

    values: Sequence[Values]
    running: Collection[tuple[int, int]]
    failed: Collection[int]
    rungs: Sequence[int]
    steps: Sequence[int]
    lower_is_better: bool

    def reached(self, trial: int) -> int:
        """The highest rung at which a trial was evaluated; -1 before the first."""
        found = self.values[trial]
        return max((i for i, rung in enumerate(self.rungs) if rung in found), default=-1)

    def next_rung(self, trial: int) -> int:
        """The optimizer step of the rung after the one that a trial reached."""
        return self.rungs[self.reached(trial) + 1]

    def score(self, trial: int, height: int) -> float:
        """The value at a rung, where lower is better."""
        value = self.values[trial][self.rungs[height]]
        return value if self.lower_is_better else -value

    def ranking(self, height: int) -> list[int]:
        """Trials evaluated at a rung, best first; equals by number."""
        there = [i for i, found in enumerate(self.values) if self.rungs[height] in found]
        return sorted(there, key=lambda trial: (self.score(trial, height), trial))

    def interrupted(self) -> int | None:
        """The first trial whose segment was begun, or asked for, and is not running."""
        for trial in self._idle():
            height = self.reached(trial)
            trained = self.steps[trial] if trial < len(self.steps) else 0
            if height < 0 or trained > self.rungs[height]:
                return trial
        return None

    def promotable(self, reduction: int, complete: bool) -> list[int]:
        """Trials to promote, from the lowest rung to the highest, the worst of each rung first.

        The base comes last, whatever its rank. ``complete``: no further trial will be asked for.
        """
        found: list[int] = []
        closed = complete
        idle = set(self._idle())
        for height, rung in enumerate(self.rungs[:-1]):
            closed = closed and not any(target <= rung for _, target in self.running)
            measured = self.ranking(height)
            # Where a trial failed later, the next best goes on in its place.
            ranking = [trial for trial in measured if trial not in self.failed]
            best = ranking[: len(measured) // reduction]
            if closed:
                best = [*best, *[trial for trial in ranking if trial != BASE][:1]]
            here = [t for t in best if t in idle and t != BASE and self.reached(t) == height]
            found += reversed(dict.fromkeys(here))
            # What is promoted from here will arrive at the next rung.
            closed = closed and not here
        return [*found, BASE] if BASE in idle else found

    def _idle(self) -> list[int]:
        """Trials that may go on: neither failed, nor running, nor at the end."""
        busy = {trial for trial, _ in self.running} | set(self.failed)
        last = len(self.rungs) - 1
        return [i for i in range(len(self.values)) if i not in busy and self.reached(i) < last]
