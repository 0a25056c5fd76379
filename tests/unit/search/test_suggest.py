"""Suggestions: functions of seed, number and journal, the same in every process."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import pytest

from colddiff.errors import SpecError
from colddiff.spec import canonical_json
from colddiff.stores.memory_store import MemoryStore
from colddiff.verbs.search.points.optuna_suggest import STARTUP_TRIALS, tpe_point
from colddiff.verbs.search.points.space import Dimension, Point
from colddiff.verbs.search.points.suggest import (
    STUCK_AFTER,
    Observation,
    grid_points,
    observations,
    random_point,
    suggested_point,
)
from colddiff.verbs.search.trials import states
from tests.unit.search.test_trials import METRIC, RUNGS, evaluated, stands, trial

T = "degradation.num_timesteps"
RATIO = "degradation.sigma.ratio"
KIND = "degradation.sigma.kind"
SPACE = (
    Dimension(T, 6, 40, log=True, integer=True),
    Dimension(RATIO, 0.125, 8.0, log=True),
    Dimension(KIND, choices=("linear", "exponential")),
)
Searcher = Literal["tpe", "random", "grid"]
SEARCHERS: tuple[Searcher, ...] = ("tpe", "random", "grid")


def quality(point: Point) -> float:
    ratio, num_timesteps = float(point[RATIO]), int(point[T])
    return 10 + 20 * abs(math.log(ratio / 0.25)) + 0.1 * abs(num_timesteps - 20)


def history(count: int, seed: int = 0, outcome: Any = "done") -> list[Observation]:
    points = [random_point(SPACE, seed, number) for number in range(1, count + 1)]
    return [
        Observation(point, {60: 3 * quality(point), 250: quality(point)}, outcome)
        for point in points
    ]


def suggestions() -> list[Point | None]:
    known = [*history(7), Observation(random_point(SPACE, 5, 1), {}, "asked")]
    return [
        suggested_point(searcher, SPACE, 3, number, known)
        for searcher in SEARCHERS
        for number in (1, 2, 9)
    ]


def test_suggestions_are_the_same_in_another_process() -> None:
    program = (
        "import json; from tests.unit.search.test_suggest import suggestions; "
        "print(json.dumps(suggestions()))"
    )
    out = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    ).stdout
    assert json.loads(out.splitlines()[-1]) == suggestions()


@pytest.mark.parametrize("searcher", ["random", "grid"])
def test_random_and_grid_do_not_depend_on_results(searcher: Searcher) -> None:
    for number in range(1, 6):
        without = suggested_point(searcher, SPACE, 0, number)
        assert suggested_point(searcher, SPACE, 0, number, history(8)) == without


@pytest.mark.parametrize("searcher", SEARCHERS)
def test_numbers_seeds_and_redraws_differ(searcher: Searcher) -> None:
    known = history(2)
    points = [suggested_point(searcher, SPACE, 0, number, known) for number in range(1, 9)]
    points += [suggested_point(searcher, SPACE, 1, 1, known)]
    assert len({canonical_json(point) for point in points}) >= 8
    redrawn = [suggested_point(searcher, SPACE, 0, 1, known, redraw=j) for j in range(8)]
    assert len({canonical_json(point) for point in redrawn}) >= 7
    assert redrawn[0] == points[0]


@pytest.mark.parametrize("searcher", SEARCHERS)
def test_points_lie_in_the_space_and_are_json(searcher: Searcher) -> None:
    for number in range(1, 30):
        point = suggested_point(searcher, SPACE, 0, number, history(6))
        assert point is not None
        assert json.loads(json.dumps(point)) == point
        assert isinstance(point[T], int)
        assert 6 <= point[T] <= 40
        assert 0.125 <= point[RATIO] <= 8
        assert point[RATIO] == float(f"{point[RATIO]:.4g}")
        assert point[KIND] in ("linear", "exponential")


def test_random_points_fill_the_space_on_its_own_scale() -> None:
    points = [random_point(SPACE, 0, number) for number in range(2000)]
    below = np.mean([point[RATIO] < 1 for point in points])
    assert below == pytest.approx(0.5, abs=0.04)
    assert Counter(point[KIND] for point in points)["linear"] == pytest.approx(1000, abs=80)


def test_a_grid_has_every_combination_once_with_both_ends() -> None:
    points = grid_points(SPACE, 3)
    assert len(points) == 3 * 3 * 2
    assert len({canonical_json(point) for point in points}) == 18
    assert {point[T] for point in points} >= {6, 40}
    assert {point[RATIO] for point in points} == {0.125, 1.0, 8.0}


def test_a_grid_is_shuffled_in_an_order_of_its_seed() -> None:
    assert grid_points(SPACE, 3, seed=1) == grid_points(SPACE, 3, seed=1)
    assert grid_points(SPACE, 3, seed=1) != grid_points(SPACE, 3, seed=2)
    first = [point[T] for point in grid_points(SPACE, 4, seed=0)[:8]]
    assert len(set(first)) > 2


def test_few_whole_numbers_are_fewer_levels() -> None:
    narrow = (Dimension("n", 2, 3, integer=True),)
    assert sorted(point["n"] for point in grid_points(narrow, 5)) == [2, 3]
    assert len(grid_points((Dimension("x", 0.0, 1.0),), 1)) == 1


def test_a_grid_ends_and_redraws_go_on_in_it() -> None:
    grid = grid_points(SPACE, seed=4)
    assert suggested_point("grid", SPACE, 4, 1) == grid[0]
    assert suggested_point("grid", SPACE, 4, 2, redraw=3) == grid[4]
    assert suggested_point("grid", SPACE, 4, len(grid)) == grid[-1]
    assert suggested_point("grid", SPACE, 4, len(grid) + 1) is None
    assert suggested_point("grid", SPACE, 4, len(grid), redraw=1) is None


def test_skipping_used_points_takes_every_point_of_a_grid_once() -> None:
    taken: list[Point] = []
    for number in range(1, 100):
        redraw = 0
        while (point := suggested_point("grid", SPACE, 0, number, redraw=redraw)) in taken:
            redraw += 1
        if point is None:
            break
        taken.append(point)
    assert taken == grid_points(SPACE)


def test_a_grid_that_is_too_large_is_refused() -> None:
    wide = [Dimension(f"x{i}", 0.0, 1.0) for i in range(12)]
    with pytest.raises(SpecError, match="searcher: a grid over 12 fields has 244,140,625 points"):
        grid_points(wide)


def nearness(points: Sequence[Point | None]) -> float:
    return float(np.mean([quality(point) for point in points if point is not None]))


def test_tpe_learns_from_the_journal() -> None:
    known = history(16)
    drawn = [random_point(SPACE, 0, number) for number in range(100, 120)]
    learned = [tpe_point(SPACE, 0, number, known) for number in range(100, 120)]
    assert nearness(learned) < 0.6 * nearness(drawn)


def test_tpe_learns_the_other_way_where_higher_is_better() -> None:
    known = history(16)
    low = [tpe_point(SPACE, 0, number, known) for number in range(100, 110)]
    high = [tpe_point(SPACE, 0, n, known, lower_is_better=False) for n in range(100, 110)]
    assert nearness(high) > 2 * nearness(low)


def test_tpe_learns_from_trials_at_a_lower_rung() -> None:
    known = [Observation(o.point, {60: o.values[60]}, "measured") for o in history(16)]
    learned = [tpe_point(SPACE, 0, number, known) for number in range(100, 120)]
    drawn = [random_point(SPACE, 0, number) for number in range(100, 120)]
    assert nearness(learned) < 0.6 * nearness(drawn)


def test_tpe_draws_at_random_before_it_has_results() -> None:
    few, enough = history(STARTUP_TRIALS - 1), history(STARTUP_TRIALS)
    none = tpe_point(SPACE, 0, 9, [])
    assert tpe_point(SPACE, 0, 9, few) == none
    assert tpe_point(SPACE, 0, 9, enough) != none


def test_failed_trials_and_points_outside_the_space_are_no_results() -> None:
    few, none = history(STARTUP_TRIALS - 1), tpe_point(SPACE, 0, 9, [])
    failed = history(5, seed=1, outcome="failed")
    assert tpe_point(SPACE, 0, 9, [*few, *failed]) == none
    strange: list[Point] = [
        {T: 400, RATIO: 1.0, KIND: "linear"},
        {T: 20, RATIO: 1.0, KIND: "constant"},
        {T: 20},
        {},
    ]
    outside = [Observation(point, {250: 1.0}, "done") for point in strange]
    assert tpe_point(SPACE, 0, 9, [*few, *outside]) == none


def test_tpe_keeps_away_from_what_is_being_tried() -> None:
    space = (Dimension(RATIO, 0.125, 8.0, log=True),)
    known = [Observation({RATIO: r}, {250: abs(r - 1)}, "done") for r in (0.2, 0.5, 0.9, 1.1, 3, 6)]
    asked = [Observation({RATIO: r}, {}, "asked") for r in (0.85, 0.9, 0.95, 1.0, 1.05, 1.1)]

    def close(history: list[Observation]) -> float:
        points = [tpe_point(space, 0, number, history) for number in range(30)]
        return float(np.mean([0.8 < point[RATIO] < 1.2 for point in points]))

    assert close([*known, *asked]) < close(known)


def test_tpe_takes_choices_that_are_not_scalars() -> None:
    space = (Dimension("size", choices=([1, 2], {"kind": "x"}, None)),)
    known = [Observation({"size": c}, {250: float(i)}, "done") for i, c in enumerate([[1, 2]] * 6)]
    assert tpe_point(space, 0, 1, known)["size"] in ([1, 2], {"kind": "x"}, None)


def test_a_model_that_repeats_itself_gives_way_to_random_points() -> None:
    space = (Dimension(T, 6, 9, integer=True),)
    known = [Observation({T: n}, {250: float(n)}, "done") for n in (6, 6, 6, 6, 6, 9, 9, 9, 9)]
    redrawn = [
        suggested_point("tpe", space, 0, 10, known, redraw=STUCK_AFTER + j) for j in range(20)
    ]
    assert redrawn == [random_point(space, 0, 10, redraw=STUCK_AFTER + j) for j in range(20)]
    assert {point[T] for point in redrawn if point} == {6, 7, 8, 9}


def test_observations_hold_results_and_not_what_is_running() -> None:
    store = MemoryStore()
    evaluated(store, 1, s60=3.0)
    stands(store, 1, "running", 90)
    evaluated(store, 2, s60=2.0, s250=1.0)
    stands(store, 3, "failed", 10, "out of memory")
    trials = [trial(number) for number in range(4)]
    found = observations(states(store, trials, RUNGS, METRIC), RUNGS)
    assert [each.outcome for each in found] == ["asked", "measured", "done", "failed"]
    assert [dict(each.values) for each in found] == [{}, {60: 3.0}, {60: 2.0, 250: 1.0}, {}]
    assert found[2].point == trials[2].point
