"""The point of a trial: a function of the search's seed, the trial's number and the journal."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from colddiff.errors import SpecError
from colddiff.rng import stream
from colddiff.spec import canonical_json

if TYPE_CHECKING:
    from colddiff.verbs.search.points.space import Dimension, Point
    from colddiff.verbs.search.trials import TrialState

LEVELS = 5
"""Values per dimension of a grid."""
MOST_GRID_POINTS = 100_000
STUCK_AFTER = 10
"""A model that was asked so often for another point is not asked again: the next is random."""


@dataclass(frozen=True, slots=True)
class Observation:
    """What is known about a point."""

    point: Mapping[str, Any]
    values: Mapping[int, float]
    """The metric at each rung reached."""
    outcome: Literal["asked", "measured", "done", "failed"]
    """``measured`` at a lower rung, ``done`` at the last one; ``asked``: nothing yet."""


def observations(states: Sequence[TrialState], rungs: Sequence[int]) -> list[Observation]:
    """What a suggestion may use: results, and nothing about what happens to be running."""
    found = []
    for state in states:
        outcome: Literal["asked", "measured", "done", "failed"]
        if state.done(rungs):
            outcome = "done"
        elif state.failed is not None:
            outcome = "failed"
        else:
            outcome = "measured" if state.values else "asked"
        found.append(Observation(state.trial.point, state.values, outcome))
    return found


def suggested_point(
    searcher: Literal["tpe", "random", "grid"],
    space: Sequence[Dimension],
    seed: int,
    number: int,
    history: Sequence[Observation] = (),
    *,
    redraw: int = 0,
    lower_is_better: bool = True,
) -> Point | None:
    """The point of trial ``number`` (from 1; trial 0 is the base); None where a grid has no more.

    Args:
        history: used by ``tpe`` alone.
        redraw: 0, 1, ...: a next one where the caller cannot use the point before, because another
            trial has it or its end cannot be reached.
    """
    if searcher == "grid":
        points = grid_points(space, seed=seed)
        place = number - 1 + redraw
        return points[place] if place < len(points) else None
    if searcher == "tpe" and redraw < STUCK_AFTER:
        # optuna takes a second to import; the other searchers do without.
        from colddiff.verbs.search.points.optuna_suggest import tpe_point

        return tpe_point(
            space, seed, number, history, redraw=redraw, lower_is_better=lower_is_better
        )
    return random_point(space, seed, number, redraw=redraw)


def random_point(space: Sequence[Dimension], seed: int, number: int, *, redraw: int = 0) -> Point:
    """Uniform over the space, on each dimension's own scale."""
    rng = stream(seed, f"search/random/{redraw}", number)
    return {dimension.path: dimension.at(float(rng.random())) for dimension in space}


def grid_points(space: Sequence[Dimension], levels: int = LEVELS, *, seed: int = 0) -> list[Point]:
    """All combinations of ``levels`` values of each dimension, ends included, shuffled.

    The order depends on the seed alone, so that a larger number of trials goes on in it.
    """
    axes = [_levels(dimension, levels) for dimension in space]
    count = math.prod(map(len, axes))
    if count > MOST_GRID_POINTS:
        raise SpecError(
            [
                (
                    "searcher",
                    f"a grid over {len(axes)} fields has {count:,} points, at most "
                    f"{MOST_GRID_POINTS:,} can be searched; search fewer fields, or use random",
                )
            ]
        )
    points = list(itertools.product(*axes))
    paths = [dimension.path for dimension in space]
    order = stream(seed, "search/grid").permutation(count)
    return [dict(zip(paths, points[i], strict=True)) for i in order]


def _levels(dimension: Dimension, levels: int) -> list[Any]:
    if dimension.choices is not None:
        return list(dimension.choices)
    below_one = math.nextafter(1.0, 0.0)
    places = [min(i / (levels - 1), below_one) for i in range(levels)] if levels > 1 else [0.5]
    values = [dimension.at(place) for place in places]
    # A few whole numbers have fewer values than levels.
    return list({canonical_json(value): value for value in values}.values())
