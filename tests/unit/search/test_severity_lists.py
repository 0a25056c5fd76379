"""Lists of severities as a space: they fall to 0 from one start, and the journal decides them."""

from __future__ import annotations

import itertools
from collections import Counter
from typing import Any, Literal

import pytest

from colddiff.errors import SpecError
from colddiff.sampling import falling
from colddiff.verbs.search.severities.journal import ListResult, ListState, ListTrial
from colddiff.verbs.search.severities.lists import SeverityList, bands_of, spaced
from colddiff.verbs.search.severities.suggest import ListSearcher
from tests.unit.search.tiny_lists import T, list_space

EXPONENTS = (0.25, 0.7, 1.0, 1.6, 4.0)
SEARCHERS: tuple[Literal["tpe", "random", "grid"], ...] = ("tpe", "random", "grid")


def searcher(kind: Literal["tpe", "random", "grid"], seed: int = 0, **fields: Any) -> ListSearcher:
    return ListSearcher(kind, list_space(**fields), seed, "fd_lenet")


def value_of(chosen: SeverityList) -> float:
    """A quality to search for: lists that are dense near 0, with Algorithm 2, are better."""
    return sum(chosen.severities) / chosen.calls + 10 * (chosen.sampler == "naive")


def searched(by: ListSearcher, count: int, *, results: bool = True) -> list[ListState]:
    """The trials of a search whose every trial is measured before the next one is asked for."""
    states: list[ListState] = []
    for number in range(count):
        found = by.suggestion(number, states)
        if found is None:
            break
        point, chosen = found
        trial = ListTrial(number, chosen.severities, chosen.sampler, dict(point), number)
        result = ListResult({"fd_lenet": value_of(chosen)}, 1, {}, 0, 0.0) if results else None
        states.append(ListState(trial, result))
    return states


@pytest.mark.parametrize("start", [1, 2, 7, 20, 1000])
def test_every_list_falls_strictly_from_the_start_to_0_with_the_calls_asked_for(start: int) -> None:
    for calls in {1, 2, start // 2, start - 1, start} & set(range(1, start + 1)):
        for near_zero, near_end in itertools.product(EXPONENTS, EXPONENTS):
            found = spaced(calls, start, near_zero, near_end)
            assert falling(found, start) == list(found)
            assert (found[0], len(found) - 1) == (start, calls)


def test_exponents_of_1_are_even_spacing_bit_for_bit() -> None:
    for start in range(1, 60):
        for calls in range(1, start + 1):
            assert spaced(calls, start) == tuple(falling(calls, start))


def test_exponents_say_where_severities_are_dense() -> None:
    even, low, high = spaced(5, 100), spaced(5, 100, 3.0), spaced(5, 100, 1.0, 3.0)
    assert all(a < b < c for a, b, c in zip(low[1:-1], even[1:-1], high[1:-1], strict=True))


def test_more_calls_than_severities_are_refused() -> None:
    with pytest.raises(SpecError, match="severities"):
        spaced(9, 8)


def test_a_search_begins_with_the_base_and_evenly_spaced_lists_of_the_budgets() -> None:
    space = list_space()
    first = space.first_lists()
    assert first[0] == space.base
    # Eight calls are the base itself.
    assert [chosen.calls for chosen in first[1:3]] == [2, 4]
    assert all(chosen == space.even(chosen.calls) for chosen in first)
    assert len(set(first)) == len(first)
    assert {point["severities.calls"] for point in map(space.point_of, first)} >= {2, 4, 8}


def test_a_base_with_a_list_of_its_own_is_where_all_lists_begin() -> None:
    space = list_space(base=SeverityList((6, 5, 1, 0), "naive"), bands=bands_of([2, 6]))
    assert space.point_of(space.base) == {"sampler": "naive"}
    states = searched(ListSearcher("random", space, 0, "fd_lenet"), 20)
    assert {state.trial.severities[0] for state in states} == {6}
    assert states[0].trial.severities == (6, 5, 1, 0)


@pytest.mark.parametrize("kind", SEARCHERS)
def test_a_suggestion_is_a_function_of_seed_number_and_journal(
    kind: Literal["tpe", "random", "grid"],
) -> None:
    whole = searched(searcher(kind), 24)
    assert searched(searcher(kind), 24) == whole
    # From any point on, as after a restart.
    assert searcher(kind).suggestion(17, whole[:17]) == (
        whole[17].trial.point,
        whole[17].trial.chosen,
    )
    other = searched(searcher(kind, seed=1), 24)
    assert [s.trial.chosen for s in other] != [s.trial.chosen for s in whole]


@pytest.mark.parametrize("kind", ["random", "grid"])
def test_without_a_model_results_do_not_matter(kind: Literal["random", "grid"]) -> None:
    told = searched(searcher(kind), 24)
    untold = searched(searcher(kind), 24, results=False)
    assert [s.trial.chosen for s in told] == [s.trial.chosen for s in untold]


@pytest.mark.parametrize("kind", SEARCHERS)
def test_no_list_is_asked_for_twice_and_an_exhausted_space_ends(
    kind: Literal["tpe", "random", "grid"],
) -> None:
    states = searched(searcher(kind, spaced=False), 1000)
    chosen = [state.trial.chosen for state in states]
    assert len(set(chosen)) == len(chosen)
    if kind != "grid":
        # Every number of calls with either sampler, and no other.
        assert len(chosen) == 2 * T


def test_trials_take_the_budgets_in_turn() -> None:
    states = searched(searcher("random"), 30)
    bands = Counter(
        next(high for low, high in bands_of([2, 4, 8]) if low <= state.trial.chosen.calls <= high)
        for state in states[len(list_space().first_lists()) :]
    )
    assert set(bands) == {2, 4, 8}
    assert max(bands.values()) - min(bands.values()) <= 3


def test_tpe_finds_better_lists_than_chance() -> None:
    means = []
    for kind in SEARCHERS[:2]:
        best = []
        for seed in range(3):
            states = searched(
                ListSearcher(
                    kind,
                    list_space(
                        base=SeverityList(tuple(range(100, -1, -1)), "improved"),
                        bands=bands_of([5, 10]),
                    ),
                    seed,
                    "fd_lenet",
                ),
                40,
            )
            best.append(min(value_of(s.trial.chosen) for s in states if s.trial.chosen.calls > 5))
        means.append(sum(best) / len(best))
    assert means[0] < means[1]
