"""Promotion by simulation: what a search of recorded or drawn curves spends, finds and survives."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import pytest

from colddiff.rng import stream
from colddiff.verbs.search.promotion import (
    Decision,
    New,
    NoneLeft,
    Values,
    Wait,
    next_segment,
    ordinal,
    passed_over,
)

RUNGS = (250, 500, 1000)
RECORDED = (
    # Frechet distances on the validation part at the rungs; the first one is the base's.
    (102.9, 43.2, 17.6),
    (90.9, 30.3, 12.6),
    (94.0, 31.2, 13.8),
    (89.5, 32.3, 14.4),
    (91.1, 34.6, 15.4),
    (95.8, 39.0, 17.5),
    (98.6, 41.4, 17.6),
    (95.7, 39.2, 17.7),
    (135.6, 66.1, 32.4),
    (169.6, 88.8, 46.7),
    (202.2, 109.4, 58.0),
    (237.4, 134.2, 73.2),
)
SEVEN_RECORDED = (
    # The same on the quickstart's own network, where most schedules end within the seeds' spread.
    (183.6, 71.8, 8.52),
    (183.0, 78.8, 8.48),
    (205.8, 74.0, 8.66),
    (201.1, 82.6, 8.77),
    (203.5, 75.2, 9.78),
    (255.4, 144.4, 19.63),
    (246.7, 115.3, 9.86),
)
Curves = Sequence[Sequence[float]]


def drawn(seed: int, count: int = 12) -> Curves:
    """Curves whose rungs rank like the end as well as was measured (Spearman 0.92 and 0.98)."""
    rng = stream(seed, "curves")
    end = rng.normal(0, 0.6, count)
    first, second = (end + rng.normal(0, spread, count) for spread in (0.19, 0.08))
    levels = zip((first, second, end), (100, 45, 20), strict=True)
    return list(zip(*(list(level * np.exp(logs)) for logs, level in levels), strict=True))


@dataclass
class Simulation:
    """A search whose segments take as long as their steps, at ``width`` at a time."""

    curves: Curves
    num_trials: int
    width: int = 2
    rungs: Sequence[int] = RUNGS
    failing: dict[int, int] = field(default_factory=dict)
    """By trial, the rung on whose way it fails."""
    values: list[dict[int, float]] = field(default_factory=list)
    steps: list[int] = field(default_factory=list)
    failed: set[int] = field(default_factory=set)
    trained: list[tuple[int, int, int]] = field(default_factory=list)
    """Segments in the order of their ends: trial, from step, to step."""

    def run(self, kill: Callable[[int], bool] = lambda ended: False) -> None:
        """To the end; after each segment, ``kill`` may end the driver and all that runs."""
        queue: list[tuple[float, int, int]] = []
        running: set[tuple[int, int]] = set()
        now = 0.0
        while True:
            while len(running) < self.width:
                found = self.decision(running)
                if isinstance(found, Wait | NoneLeft):
                    break
                if isinstance(found, New):
                    self.values.append({})
                    self.steps.append(0)
                    continue
                trial, rung = found
                running.add(found)
                speed = stream(trial, "speed", rung).uniform(0.8, 1.2)
                heapq.heappush(queue, (now + (rung - self.steps[trial]) * speed, trial, rung))
            if not queue:
                assert isinstance(self.decision(running), NoneLeft)
                return
            now, trial, rung = heapq.heappop(queue)
            running.remove((trial, rung))
            self.end(trial, rung)
            if kill(len(self.trained)):
                # What was under way has a checkpoint half way.
                for other, target in running:
                    self.reach(other, (self.steps[other] + target) // 2)
                return

    def decision(self, running: set[tuple[int, int]]) -> Decision:
        return next_segment(
            self.values, running, self.failed, self.rungs, self.num_trials, steps=self.steps
        )

    def reach(self, trial: int, step: int) -> None:
        self.trained.append((trial, self.steps[trial], step))
        self.steps[trial] = step

    def end(self, trial: int, rung: int) -> None:
        self.reach(trial, rung)
        if self.failing.get(trial) == rung:
            self.failed.add(trial)
        else:
            self.values[trial][rung] = self.curves[trial][RUNGS.index(rung)]

    @property
    def cost(self) -> float:
        """Steps trained, as part of the full grid's."""
        return sum(b - a for _, a, b in self.trained) / (len(self.values) * self.rungs[-1])

    @property
    def finished(self) -> list[int]:
        return [i for i, found in enumerate(self.values) if self.rungs[-1] in found]

    @property
    def found(self) -> float:
        return min(found[self.rungs[-1]] for found in self.values if self.rungs[-1] in found)


def in_order(curves: Curves, seed: int) -> list[Sequence[float]]:
    """The base, and the others in an order of their own."""
    others = stream(seed, "order").permutation(len(curves) - 1) + 1
    return [curves[0], *(curves[i] for i in others)]


def searched(curves: Curves, **more: object) -> Simulation:
    simulation = Simulation(curves, len(curves), **more)  # type: ignore[arg-type]
    simulation.run()
    return simulation


@pytest.mark.parametrize(
    "curves", [RECORDED, drawn(0), drawn(1), drawn(2)], ids=["recorded", "drawn", "drawn", "drawn"]
)
def test_it_spends_less_than_half_and_finds_the_best(curves: Curves) -> None:
    runs = [searched(in_order(curves, seed)) for seed in range(40)]
    best = min(curve[-1] for curve in curves)
    assert np.mean([run.cost for run in runs]) <= 0.45
    assert np.mean([run.found for run in runs]) <= 1.02 * best
    assert all(0 in run.finished for run in runs)


def test_in_every_order_of_the_recorded_curves_the_best_is_found() -> None:
    best = min(curve[-1] for curve in RECORDED)
    assert {searched(in_order(RECORDED, seed)).found for seed in range(40)} == {best}


def test_drawn_curves_rank_as_the_recorded_ones_do() -> None:
    from scipy.stats import spearmanr  # half a second, in every process that collects tests

    sets = [np.array(drawn(seed)) for seed in range(200)]
    for rung, measured in ((0, 0.92), (1, 0.98)):
        found = np.mean([spearmanr(curves[:, rung], curves[:, 2])[0] for curves in sets])
        assert found == pytest.approx(measured, abs=0.015)


def test_over_many_drawn_searches_the_best_is_missed_by_little() -> None:
    runs = [(searched(curves), curves) for curves in map(drawn, range(100))]
    regrets = [run.found / min(curve[-1] for curve in curves) for run, curves in runs]
    assert np.mean([run.cost for run, _ in runs]) <= 0.45
    assert np.mean(regrets) <= 1.02


@pytest.mark.parametrize("count", [2, 3, 5, 12])
@pytest.mark.parametrize("seed", range(5))
def test_a_small_search_finishes_the_base_and_the_best_other(count: int, seed: int) -> None:
    curves = [RECORDED[0], *in_order(RECORDED, seed)[1:count]]
    run = searched(curves)
    assert 0 in run.finished
    best = min(range(1, count), key=lambda trial: curves[trial][1])
    assert best in run.finished


def test_without_another_trial_the_base_alone_goes_to_the_end() -> None:
    assert searched(RECORDED[:1]).trained == [(0, 0, 250), (0, 250, 500), (0, 500, 1000)]


def test_the_base_goes_to_the_end_even_as_the_worst() -> None:
    worst = [(900.0, 800.0, 700.0), *RECORDED[1:]]
    assert 0 in searched(worst).finished


def test_seven_recorded_schedules_of_the_real_network() -> None:
    runs = [searched(in_order(SEVEN_RECORDED, seed)) for seed in range(20)]
    assert {run.found for run in runs} == {8.48}
    assert max(run.cost for run in runs) < 0.5


def test_only_the_best_quarter_is_promoted_from_a_rung_that_still_fills() -> None:
    values: list[Values] = [{250: 50.0, 500: 5.0, 1000: 5.0}, {250: 10.0}, {250: 11.0}]
    assert next_segment(values, (), (), RUNGS, 12) == New()
    values.append({250: 12.0})
    assert next_segment(values, (), (), RUNGS, 12) == (1, 500)
    assert next_segment(values, {(1, 500)}, (), RUNGS, 12) == New()


def test_a_higher_rung_is_served_first() -> None:
    low = [{250: float(i)} for i in range(8)]
    high = [{250: 100.0 + i, 500: 1.0 + i} for i in range(4)]
    values: list[Values] = [{250: 9.0, 500: 9.0, 1000: 9.0}, *high, *low]
    assert next_segment(values, (), (), RUNGS, 50) == (1, 1000)


def test_a_rung_gives_its_best_away_only_once_all_that_come_to_it_have_come() -> None:
    base = {250: 9.0, 500: 9.0, 1000: 9.0}
    values: list[Values] = [base, {250: 1.0, 500: 5.0}, {250: 2.0}, *({250: 3.0} for _ in range(5))]
    assert next_segment(values, (), (), RUNGS, 8) == (2, 500)
    assert next_segment(values, {(2, 500)}, (), RUNGS, 8) == Wait()
    values[2] = {250: 2.0, 500: 4.0}
    assert next_segment(values, (), (), RUNGS, 8) == (2, 1000)


def test_higher_is_better_turns_the_ranking_round() -> None:
    values: list[Values] = [{1000: 1.0, 250: 1.0}, {250: 20.0}, {250: 30.0}]
    assert next_segment(values, (), (), RUNGS, 3) == (1, 500)
    assert next_segment(values, (), (), RUNGS, 3, lower_is_better=False) == (2, 500)


@pytest.mark.parametrize("rung", RUNGS)
@pytest.mark.parametrize("width", [1, 2, 3])
def test_failed_trials_are_passed_over(rung: int, width: int) -> None:
    run = searched(RECORDED, failing={1: rung}, width=width)
    assert run.failed == {1}
    assert 1 not in run.finished
    # Trial 2 has the fourth place at the first rung: it takes that of the best, once measured.
    assert (3 if rung == 250 else 2) in run.finished


def test_a_search_in_which_all_fail_ends() -> None:
    run = searched(RECORDED, failing=dict.fromkeys(range(12), 250))
    assert run.finished == []
    assert len(run.trained) == 12


def test_a_search_that_waits_says_so() -> None:
    values: list[Values] = [{250: 1.0, 500: 1.0, 1000: 1.0}, {250: 2.0}, {}]
    assert next_segment(values, {(2, 250)}, (), RUNGS, 3) == Wait()
    assert next_segment(values, {(2, 250)}, (), RUNGS, 4) == New()


def test_one_rung_takes_every_trial_straight_to_the_end() -> None:
    run = searched(RECORDED, rungs=RUNGS[-1:])
    assert sorted(run.trained) == [(trial, 0, 1000) for trial in range(12)]
    assert run.cost == 1


@pytest.mark.parametrize("width", [1, 2])
@pytest.mark.parametrize("kills", [{1}, {5, 9}, {2, 4, 6, 8, 10}, set(range(1, 60))], ids=str)
def test_a_killed_search_trains_no_step_twice(kills: set[int], width: int) -> None:
    run = Simulation(RECORDED, 12, width)
    for _ in range(100):
        before = len(run.trained)
        run.run(kill=lambda ended, before=before: ended > before and ended in kills)  # type: ignore[misc]
        if len(run.trained) == before:
            break
    covered = [(trial, step) for trial, a, b in run.trained for step in range(a, b)]
    assert len(covered) == len(set(covered))
    assert sum(run.steps) == len(covered)
    assert set(run.steps) <= set(RUNGS)
    assert run.found == 12.6
    assert 0 in run.finished


def test_one_at_a_time_a_killed_search_takes_the_same_decisions() -> None:
    whole = searched(RECORDED, width=1)
    cut = Simulation(RECORDED, 12, width=1)
    for _ in range(len(whole.trained) + 1):
        cut.run(kill=lambda ended: True)
    assert cut.trained == whole.trained


def test_a_segment_that_was_cut_is_continued_even_if_its_rank_fell() -> None:
    values: list[Values] = [{250: 1.0, 500: 1.0, 1000: 1.0}, {250: 50.0}, {250: 2.0}, {250: 3.0}]
    assert next_segment(values, (), (), RUNGS, 12, steps=[1000, 250, 250, 250]) != (1, 500)
    assert next_segment(values, (), (), RUNGS, 12, steps=[1000, 300, 250, 250]) == (1, 500)


def test_a_finished_search_is_extended_by_more_trials() -> None:
    run = Simulation(RECORDED, 8)
    run.run()
    before = list(run.trained)
    run.num_trials = 12
    run.run()
    assert run.trained[: len(before)] == before
    assert len(run.values) == 12
    assert all(run.values)
    covered = [(trial, a) for trial, a, _ in run.trained]
    assert len(covered) == len(set(covered))


def test_fewer_trials_than_were_asked_for_changes_nothing() -> None:
    run = searched(RECORDED)
    run.num_trials = 3
    assert run.decision(set()) == NoneLeft()


def test_the_reason_why_a_trial_did_not_go_on() -> None:
    values: list[Values] = [
        {60: 9.0, 120: 9.0, 250: 9.0},
        {60: 1.0, 120: 1.0, 250: 1.0},
        {60: 2.0, 120: 2.0},
        {60: 3.0, 120: 3.0},
        {60: 4.0},
        {60: 4.0},
        {60: 6.0},
        {},
    ]
    rungs = (60, 120, 250)
    assert passed_over(values, rungs, 4) == "at step 60: 4th of 7, best 3 and the base went on"
    assert passed_over(values, rungs, 5) == passed_over(values, rungs, 4)
    assert passed_over(values, rungs, 3) == "at step 120: 3rd of 4, the best and the base went on"
    assert passed_over(values, rungs, 1) == ""
    assert passed_over(values, rungs, 7) == ""


def test_the_reason_names_promotions_that_came_before_better_results() -> None:
    values: list[Values] = [{60: 0.5, 250: 1}, {60: 3.0, 250: 3}, {60: 1.0, 250: 1}, {60: 2.0}]
    assert (
        passed_over(values, (60, 250), 3)
        == "at step 60: 3rd of 4, best 2 and 1 promoted earlier went on"
    )


def test_the_reason_counts_a_failed_trial_as_measured_only() -> None:
    values: list[Values] = [{60: 9.0, 250: 1}, {60: 1.0}, {60: 2.0, 250: 1}, {60: 3.0}]
    assert (
        passed_over(values, (60, 250), 3, failed={1})
        == "at step 60: 3rd of 4, the best and the base went on"
    )
    assert passed_over([{60: 1.0}, {60: 2.0}], (60, 250), 1) == "at step 60: 2nd of 2, none went on"


def test_ordinals() -> None:
    assert [ordinal(n) for n in (1, 2, 3, 4, 11, 12, 13, 21, 112)] == (
        ["1st", "2nd", "3rd", "4th", "11th", "12th", "13th", "21st", "112th"]
    )
