"""The confirmation: the best list of each budget on the test images, against even spacing."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from colddiff.data.open import read_manifest
from colddiff.jobs.attempt import Attempt
from colddiff.jobs.segments.listed import ListedSegments
from colddiff.report.grids import number
from colddiff.verbs.search.severities.evaluator import GROUPS
from colddiff.verbs.search.severities.journal import (
    ListResult,
    ListState,
    confirmation_name,
    read_list_result,
)
from colddiff.verbs.search.severities.lists import SeverityList
from colddiff.verbs.search.severities.segment import ListSegment
from colddiff.verbs.search.severities.task import ListTask


@dataclass(frozen=True, slots=True)
class ListDifference:
    """A list against another one on the same test images: their difference and how sure it is.

    The network is fixed, so what is uncertain is the choice of images (and of what D drew for
    them). ``se`` is the standard error by a delete-a-group jackknife: the images in 20 random
    groups, the difference without each group in turn, the same groups for both lists. Unlike a
    bootstrap it repeats no image, which would bias a Frechet distance.
    """

    against: str
    """What the other list is: ``even spacing``, ``the base``, ..."""
    other: SeverityList
    value: float
    difference: float
    """This list minus the other; negative is better where lower is better."""
    se: float | None
    """None where there are too few images for groups."""
    lower_is_better: bool

    @property
    def distinguished(self) -> bool:
        """Whether the difference is at least twice its standard error."""
        return self.se is not None and abs(self.difference) >= 2 * self.se > 0

    @property
    def verdict(self) -> str:
        """``better``, ``worse`` or ``not distinguished``."""
        if not self.distinguished:
            return "not distinguished"
        return "better" if (self.difference < 0) == self.lower_is_better else "worse"

    @property
    def sentence(self) -> str:
        """Difference, standard error and verdict, for a table."""
        share = 100 * self.difference / self.value if self.value else 0.0
        percent = f" ({number(share, sign='+')} %)" if self.value else ""
        error = "" if self.se is None else f" ± {number(self.se, 2)}"
        return f"{number(self.difference, sign='+')}{error}{percent}: {self.verdict}"

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {**asdict(self), "distinguished": self.distinguished, "verdict": self.verdict}


@dataclass(frozen=True, slots=True)
class BestList:
    """The best list of at most ``budget`` network calls, by the validation images."""

    budget: int
    state: ListState
    test: ListResult | None = None
    """On the test images; None without a confirmation."""
    differences: tuple[ListDifference, ...] = ()


def best_lists(
    states: Sequence[ListState], budgets: Sequence[int], metric: str, *, lower_is_better: bool
) -> list[BestList]:
    """The best measured list within each budget; of equals the one with fewer calls."""
    sign = 1.0 if lower_is_better else -1.0
    measured = [(s.value(metric), s) for s in states]
    ranked = sorted(
        ((sign * value, s.trial.chosen.calls, s.trial.number), s)
        for value, s in measured
        if value is not None
    )
    found = []
    for budget in budgets:
        within = [state for _, state in ranked if state.trial.chosen.calls <= budget]
        if within:
            found.append(BestList(budget, within[0]))
    return found


class ListConfirmation(ListedSegments[SeverityList, ListSegment]):
    """``SegmentSource`` of the best lists and what they are compared with, on the test images."""

    def __init__(self, attempt: Attempt, task: ListTask, best: Sequence[BestList]) -> None:
        assert task.base.test_data is not None
        self._attempt, self._task, self._best = attempt, task, best
        self._images = task.base.test_data
        self._digest = read_manifest(self._images).digest
        wanted = [task.space.base]
        for found in best:
            wanted += [found.state.trial.chosen, *self._others(found).values()]
        super().__init__(c for c in dict.fromkeys(wanted) if self._result(c) is None)

    def _segment(self, item: SeverityList) -> ListSegment:
        key, name = f"confirmation of {item}", confirmation_name(item, self._digest)
        return ListSegment(key, item.severities, item.sampler, self._images, name, GROUPS)

    def confirmed(self) -> list[BestList]:
        """The best lists with what was found on the test images."""
        found = []
        for best in self._best:
            own = self._result(best.state.trial.chosen)
            differences = []
            for against, other in self._others(best).items():
                beside = self._result(other)
                if own is not None and beside is not None:
                    differences.append(self._difference(against, other, own, beside))
            found.append(BestList(best.budget, best.state, own, tuple(differences)))
        return found

    def _others(self, best: BestList) -> dict[str, SeverityList]:
        """What a best list is compared with, by name; never with itself."""
        space, chosen = self._task.space, best.state.trial.chosen
        others = {
            "even spacing": space.even(chosen.calls),
            f"even spacing, {chosen.sampler}": space.even(chosen.calls, chosen.sampler),
            "the base": space.base,
        }
        if chosen.sampler == space.base.sampler:
            del others[f"even spacing, {chosen.sampler}"]
        return {name: other for name, other in others.items() if other != chosen}

    def _result(self, chosen: SeverityList) -> ListResult | None:
        name = confirmation_name(chosen, self._digest)
        return read_list_result(self._attempt.folder, name, self._task.metric)

    def _difference(
        self, against: str, other: SeverityList, own: ListResult, beside: ListResult
    ) -> ListDifference:
        metric = self._task.metric
        pair = own.replicates.get(metric, []), beside.replicates.get(metric, [])
        return ListDifference(
            against,
            other,
            beside.metrics[metric],
            own.metrics[metric] - beside.metrics[metric],
            jackknife_error(*pair) if len(pair[0]) == len(pair[1]) else None,
            self._task.lower_is_better,
        )


def jackknife_error(values: Sequence[float], others: Sequence[float]) -> float | None:
    """Standard error of a difference from both sides without each group of images in turn.

    sqrt((k - 1) / k sum (d_i - mean)^2) over the k differences; None for fewer than 2.
    """
    k = len(values)
    if k < 2:
        return None
    differences = [a - b for a, b in zip(values, others, strict=True)]
    mean = sum(differences) / k
    return math.sqrt((k - 1) / k * sum((d - mean) ** 2 for d in differences))
