"""A search as plain data, as its pictures take it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from colddiff.report.search.results import (
    DrawnTrial,
    Importance,
    Line,
    SearchAxis,
    SearchResults,
    Strip,
    Strips,
)

RUNGS = (60, 120, 250)
T = SearchAxis("num_timesteps", log=True, ends=(6.0, 40.0))
RATIO = SearchAxis("ratio", log=True, ends=(0.125, 8.0))
POINTS = ((20.0, 4.0), (10.0, 0.5), (8.0, 1.0), (20.0, 0.25), (40.0, 8.0))
VALUES: tuple[tuple[float, ...], ...] = (
    (100.0, 40.0, 8.0),
    (90.0, 30.0, 6.0),
    (95.0, 45.0),
    (92.0, 33.0, 7.0),
    (200.0,),
)


def drawn_trials(
    values: Sequence[Sequence[float]] = VALUES, points: Sequence[tuple[float, ...]] = POINTS
) -> list[DrawnTrial]:
    """Trials with ``values`` at the rungs, ranked as a leaderboard ranks them; 0 is the base."""
    last = [v[-1] if v else math.inf for v in values]
    order = sorted(range(len(values)), key=lambda i: (-len(values[i]), last[i]))
    return [
        DrawnTrial(
            number=number,
            base=number == 0,
            rank=order.index(number) + 1 if reached else None,
            finished=len(reached) == len(RUNGS),
            point=points[number],
            values=dict(zip(RUNGS, reached, strict=False)),
            calls=10 + number,
            skipped={5: 9.5, 2: 14.0} if number in (0, 1) else {},
            removed=Line((0.0, 0.5, 1.0), (0.0, 0.1 + 0.01 * number, 0.2)),
            schedules={"sigma (px)": Line((0.5, 1.0), (1.0 + number, 2.0))},
        )
        for number, reached in enumerate(values)
    ]


def drawn_strips(side: int = 16, channels: int = 1) -> Strips:
    """Noise as strips of trials 1, 0 and 3."""
    rng = np.random.default_rng(0)

    def images() -> Any:
        return rng.integers(0, 256, (3, channels, side, side), dtype=np.uint8)

    roles = (("best", 1), ("base", 0), ("worst", 3))
    strips = tuple(Strip(role, number, images(), images()) for role, number in roles)
    return Strips((1.0, 0.4, 0.0), "Algorithm 2", strips)


IMPORTANCE = Importance(
    "fANOVA", 60, 12, 20, {"num_timesteps": (0.18, 0.05, 0.4), "ratio": (0.82, 0.6, 0.95)}
)


def drawn_results(**fields: Any) -> SearchResults:
    """A finished search over T and the ratio, with all that can be drawn."""
    given: dict[str, Any] = {
        "metric": "eval/sampled/fd_lenet",
        "lower_is_better": True,
        "rungs": RUNGS,
        "axes": (T, RATIO),
        "trials": tuple(drawn_trials()),
        "num_trials": 5,
        "complete": True,
        "num_images": 256,
        "base_seeds": (9.0, 10.0, 11.0),
        "strips": drawn_strips(),
        "importance": IMPORTANCE,
    }
    return SearchResults(**{**given, **fields})
