"""The list that a trial evaluates: a function of the search's seed, its number and the journal."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Literal

from colddiff.verbs.search.points.space import Dimension, Point
from colddiff.verbs.search.points.suggest import Observation, grid_points, suggested_point
from colddiff.verbs.search.severities.journal import ListState
from colddiff.verbs.search.severities.lists import ListSpace, SeverityList

REDRAWS = 100
"""Draws in a band after which it counts as exhausted."""

Suggestion = tuple[Point, SeverityList]


@dataclass(frozen=True, slots=True)
class ListSearcher:
    """Chooses the lists of a search. Trials take the bands of the space in turn."""

    kind: Literal["tpe", "random", "grid"]
    space: ListSpace
    seed: int
    metric: str
    lower_is_better: bool = True

    def suggestion(self, number: int, states: Sequence[ListState]) -> Suggestion | None:
        """The list of trial ``number``, which no trial of ``states`` has; None if there is none.

        The first trials are the base and evenly spaced lists, whatever the searcher.
        """
        first = self.space.first_lists()
        if number < len(first):
            return self.space.point_of(first[number]), first[number]
        taken = {state.trial.chosen for state in states}
        if self.kind == "grid":
            return next((found for found in self._grid() if found[1] not in taken), None)
        bands = self.space.bands
        turn = (number - len(first)) % len(bands)
        for low, high in (*bands[turn:], *bands[:turn]):
            found = self._drawn(number, low, high, states, taken)
            if found is not None:
                return found
        return None

    def _drawn(
        self,
        number: int,
        low: int,
        high: int,
        states: Sequence[ListState],
        taken: Collection[SeverityList],
    ) -> Suggestion | None:
        dimensions = self.space.dimensions(low, high)
        history = [self._observation(s) for s in states if low <= s.trial.chosen.calls <= high]
        for redraw in range(REDRAWS):
            point = suggested_point(
                self.kind,
                dimensions,
                self.seed,
                number,
                history,
                redraw=redraw,
                lower_is_better=self.lower_is_better,
            )
            assert point is not None  # only a grid ends
            chosen = self.space.at(point)
            if chosen not in taken:
                return point, chosen
        return None

    def _grid(self) -> list[Suggestion]:
        """All lists of the grid whose numbers of calls are the budgets, in a shuffled order."""
        budgets = tuple(high for _, high in self.space.bands)
        calls, *others = self.space.dimensions(budgets[0], budgets[-1])
        axes = [Dimension(calls.path, choices=budgets), *others]
        return [(point, self.space.at(point)) for point in grid_points(axes, seed=self.seed)]

    def _observation(self, state: ListState) -> Observation:
        value = state.value(self.metric)
        if value is not None:
            return Observation(state.trial.point, {0: value}, "done")
        outcome: Literal["asked", "failed"] = "failed" if state.failed else "asked"
        return Observation(state.trial.point, {}, outcome)
