"""Lists of severities as points of a search space: how many calls, how they are spaced."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from colddiff.errors import SpecError
from colddiff.sampling import falling
from colddiff.verbs.search.points.space import Dimension, Point

SEVERITIES, SAMPLER = "severities", "sampler"
SEARCHED = (SEVERITIES, SAMPLER)
"""What ``over`` may name where the base is a checkpoint."""
CALLS, NEAR_ZERO, NEAR_END = "severities.calls", "severities.near_zero", "severities.near_end"
SPACING_RANGE = (0.25, 4.0)
EVEN_LISTS = 8
"""About how many numbers of calls the line of evenly spaced lists has."""


@dataclass(frozen=True, slots=True)
class SeverityList:
    """Severities that fall to 0, and the sampler that follows them: what a trial evaluates."""

    severities: tuple[int, ...]
    sampler: str

    @property
    def calls(self) -> int:
        """Calls of the network per image."""
        return len(self.severities) - 1

    def __str__(self) -> str:
        return f"{self.sampler} {'-'.join(map(str, self.severities))}"


@dataclass(frozen=True, slots=True)
class ListSpace:
    """The lists that a search chooses from. All begin at ``base``'s first severity.

    ``bands``: ranges (lowest, highest) of numbers of calls that trials take in turn, one for each
    budget, so that a small budget is searched as thoroughly as a large one.
    """

    base: SeverityList
    samplers: tuple[str, ...]
    bands: tuple[tuple[int, int], ...]
    spaced: bool
    """Whether spacings are searched; else lists are evenly spaced."""

    @property
    def start(self) -> int:
        """The severity that every list begins at."""
        return self.base.severities[0]

    def dimensions(self, low: int, high: int) -> tuple[Dimension, ...]:
        """The dimensions of the lists of ``low`` to ``high`` calls."""
        found = [Dimension(CALLS, low, high, integer=True)]
        if self.spaced:
            found += [Dimension(path, *SPACING_RANGE, log=True) for path in (NEAR_ZERO, NEAR_END)]
        if len(self.samplers) > 1:
            found.append(Dimension(SAMPLER, choices=self.samplers))
        return tuple(found)

    def at(self, point: Mapping[str, Any]) -> SeverityList:
        """The list at a point, whose missing values are those of even spacing and of the base."""
        severities = spaced(
            int(point[CALLS]), self.start, point.get(NEAR_ZERO, 1.0), point.get(NEAR_END, 1.0)
        )
        return SeverityList(severities, point.get(SAMPLER, self.base.sampler))

    def even(self, calls: int, sampler: str | None = None) -> SeverityList:
        """``calls`` evenly spaced severities, by default for the base's sampler."""
        return SeverityList(spaced(calls, self.start), sampler or self.base.sampler)

    def point_of(self, chosen: SeverityList) -> Point:
        """The point of an evenly spaced list; just its sampler for a list that is not."""
        point: Point = {SAMPLER: chosen.sampler} if len(self.samplers) > 1 else {}
        if chosen.severities == spaced(chosen.calls, self.start):
            point[CALLS] = chosen.calls
            point |= {NEAR_ZERO: 1.0, NEAR_END: 1.0} if self.spaced else {}
        return point

    def first_lists(self) -> list[SeverityList]:
        """What is evaluated before anything is drawn: the base, then evenly spaced lists.

        Those of the budgets come first: each winner is compared with one.
        """
        most = self.bands[-1][1]
        line = {round(most ** (i / (EVEN_LISTS - 1))) for i in range(EVEN_LISTS)}
        budgets = [high for _, high in self.bands]
        counts = [*budgets, *sorted(line - set(budgets))]
        return list(dict.fromkeys([self.base, *(self.even(count) for count in counts)]))


def bands_of(budgets: Sequence[int]) -> tuple[tuple[int, int], ...]:
    """The ranges of numbers of calls between rising budgets.

    >>> bands_of([5, 10, 20])
    ((1, 5), (6, 10), (11, 20))
    """
    return tuple((low + 1, high) for low, high in pairwise([0, *budgets]))


def spaced(
    calls: int, start: int, near_zero: float = 1.0, near_end: float = 1.0
) -> tuple[int, ...]:
    """``calls`` whole severities from ``start``, and 0: start (1 - (1 - u^a)^b) at even u.

    With a = ``near_zero`` above 1 they lie denser near 0, with b = ``near_end`` above 1 near the
    start; below 1 sparser. Both 1: evenly spaced, as ``falling`` has them. Severities that would
    coincide are moved apart. Raises SpecError for more calls than ``start``.

    >>> spaced(5, 20), spaced(5, 20, near_zero=2.0)
    ((20, 16, 12, 8, 4, 0), (20, 13, 7, 3, 1, 0))
    >>> spaced(4, 5, near_zero=4.0)
    (5, 3, 2, 1, 0)
    """
    even = falling(calls, start)
    if near_zero == near_end == 1:
        return tuple(even)
    if near_zero <= 0 or near_end <= 0:
        raise SpecError([(SEVERITIES, "spacing exponents must be above 0")])
    places = [(calls - i) / calls for i in range(calls + 1)]
    chosen = [round(start * (1 - (1 - u**near_zero) ** near_end)) for u in places]
    chosen[0] = start
    for i in range(1, calls):
        chosen[i] = min(chosen[i], chosen[i - 1] - 1)
    chosen[calls] = 0
    for i in range(calls - 1, 0, -1):
        chosen[i] = max(chosen[i], chosen[i + 1] + 1)
    return tuple(chosen)
