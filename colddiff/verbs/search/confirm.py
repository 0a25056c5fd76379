"""The confirmation: the best trials and the base trained again with fresh seeds, held to the test.

Differences are paired: a trial and the base that share a seed share their initial weights and the
order of their images, which cuts the noise between them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from colddiff.jobs.attempt import Attempt
from colddiff.jobs.folder import JobFolder
from colddiff.jobs.resolve import identified
from colddiff.jobs.segments.listed import ListedSegments
from colddiff.jobs.segments.segment import JobSegment
from colddiff.jobs.verb import VERBS
from colddiff.machine.wording import counted
from colddiff.report.grids import number
from colddiff.spec import parse
from colddiff.verbs.search.search_task import SearchTask
from colddiff.verbs.search.settings import lower_is_better, measured_as
from colddiff.verbs.search.tracked import nested_run
from colddiff.verbs.search.trials import Trial

if TYPE_CHECKING:
    from colddiff.verbs.train.job import TrainJob


@dataclass(frozen=True, slots=True)
class PairedComparison:
    """A trial against the base on the test set, over seeds: paired differences, trial - base."""

    trial: int
    values: tuple[float, ...]
    base: tuple[float, ...]
    lower_is_better: bool

    @property
    def differences(self) -> tuple[float, ...]:
        """By seed; negative is better where lower is better."""
        return tuple(a - b for a, b in zip(self.values, self.base, strict=True))

    @property
    def mean(self) -> float:
        """Mean of the paired differences."""
        return sum(self.differences) / len(self.differences)

    @property
    def sd(self) -> float | None:
        """Their standard deviation; None for a single seed."""
        n = len(self.differences)
        if n < 2:
            return None
        return math.sqrt(sum((d - self.mean) ** 2 for d in self.differences) / (n - 1))

    @property
    def wins(self) -> int:
        """At how many seeds the trial beats the base."""
        return sum((d < 0) == self.lower_is_better and d != 0 for d in self.differences)

    @property
    def distinguished(self) -> bool:
        """Whether |mean| is at least twice its standard error."""
        if self.sd is None:
            return False
        return abs(self.mean) >= 2 * self.sd / math.sqrt(len(self.differences))

    @property
    def verdict(self) -> str:
        """``beats the base at 3 of 3 seeds``, or what else is to be said."""
        n = len(self.values)
        if not self.distinguished:
            return "not distinguished from the base"
        if (self.mean > 0) == self.lower_is_better:
            return f"worse than the base at {n - self.wins} of {n} seeds"
        return f"beats the base at {self.wins} of {n} seeds"

    def sentence(self, metric: str) -> str:
        """What a person should believe."""
        n, base = len(self.values), sum(self.base) / len(self.base)
        percent = f" ({100 * self.mean / base:+.1f} %)" if base else ""
        spread = "" if self.sd is None else f", sd {number(self.sd)}"
        mean = number(self.mean, 4, "+")
        return (
            f"trial {self.trial}, test {metric}: {mean}{percent} against the base, "
            f"paired over {counted(n, 'fresh seed')}{spread}: {self.verdict}"
        )

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "trial": self.trial,
            "values": list(self.values),
            "base": list(self.base),
            "mean_difference": self.mean,
            "sd": self.sd,
            "n": len(self.values),
            "wins": self.wins,
            "distinguished": self.distinguished,
        }


class Confirmation(ListedSegments[tuple[int, int], JobSegment]):
    """``SegmentSource`` of the trainings of chosen trials and the base with fresh seeds."""

    def __init__(self, attempt: Attempt, task: SearchTask, chosen: Sequence[Trial]) -> None:
        self._attempt, self._task, self._chosen = attempt, task, chosen
        self._slug = f"{attempt.resolved.slug}-confirm-{measured_as(task.base)}"
        self._seeds = [task.base.seed + i + 1 for i in range(task.job.confirm_seeds)]
        self._jobs = {
            (trial.number, seed): self._job(trial, seed) for trial in chosen for seed in self._seeds
        }
        self._folders = {
            key: JobFolder(attempt.folder.store, self._id(job)) for key, job in self._jobs.items()
        }
        super().__init__(key for key in self._jobs if self._value(key) is None)

    def _segment(self, item: tuple[int, int]) -> JobSegment:
        number, seed = item
        key = f"confirmation of trial {number}, seed {seed}"
        tracking = nested_run(self._attempt.resolved.id, number, confirmed_with=seed)
        job = self._jobs[item].to_dict()
        return JobSegment(key, self._slug, job, self._task.rungs[-1], tracking)

    def trainings(self) -> dict[str, str]:
        """Ids of all training jobs, and how each stands; for any thread."""
        return {folder.job_id: self.stands(key) for key, folder in self._folders.items()}

    def comparisons(self) -> list[PairedComparison]:
        """One for each chosen trial but the base, over the seeds at which both have a value."""
        found = []
        for trial in self._chosen:
            if trial.number == 0:
                continue
            pairs = [
                (value, base)
                for seed in self._seeds
                if (value := self._value((trial.number, seed))) is not None
                and (base := self._value((0, seed))) is not None
            ]
            if pairs:
                values = tuple(pair[0] for pair in pairs)
                of_base = tuple(pair[1] for pair in pairs)
                lower = lower_is_better(self._task.metric)
                found.append(PairedComparison(trial.number, values, of_base, lower))
        return found

    def _job(self, trial: Trial, seed: int) -> TrainJob:
        job = cast("TrainJob", parse(VERBS["train"].spec(), trial.job, f"trial {trial.number}"))
        return job.model_copy(update={"seed": seed, "test_data": self._task.base.test_data})

    def _id(self, job: TrainJob) -> str:
        job = self._task.with_plugins(job)
        return identified(job, self._slug, self._attempt.resolved.storage)[2]

    def _value(self, key: tuple[int, int]) -> float | None:
        evaluation = self._folders[key].evaluation(self._task.rungs[-1])
        value = (evaluation or {}).get("metrics", {}).get(self._task.metric)
        return None if value is None else float(value)
