"""What the pictures of a search are drawn from: trials, paths and values as plain data."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from colddiff.report.grids import number
from colddiff.report.tables import DIGITS


@dataclass(frozen=True, slots=True)
class SearchAxis:
    """A searched field: a number, or one of ``choices``."""

    label: str
    log: bool = False
    choices: tuple[str, ...] | None = None
    ends: tuple[float, float] | None = None
    """The range that was searched."""

    def text(self, value: float) -> str:
        """``value`` of a point as a person reads it: a choice by its name."""
        if self.choices is not None:
            return self.choices[round(value)]
        return f"{value:.4g}"


@dataclass(frozen=True, slots=True)
class Line:
    """Points (x, y), x rising."""

    x: tuple[float, ...]
    y: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class DrawnTrial:
    """A trial as pictures show it."""

    number: int
    base: bool = False
    rank: int | None = None
    """1 is the best; None before its first evaluation."""
    finished: bool = False
    """Whether it was evaluated at the last rung."""
    point: tuple[float, ...] = ()
    """In the order of the axes: a choice by its index, NaN where there is no value."""
    values: Mapping[int, float] = field(default_factory=dict)
    """The metric by rung (optimizer step)."""
    calls: int | None = None
    """Calls of the network per restored image."""
    skipped: Mapping[int, float] = field(default_factory=dict)
    """The metric with fewer calls, because severities are skipped."""
    removed: Line | None = None
    """RMSE of D(x, t) against x, on the scale [0, 1], over t/T."""
    schedules: Mapping[str, Line] = field(default_factory=dict)
    """Physical parameter over t/T, by a label with its unit."""

    @property
    def last(self) -> int | None:
        """The highest rung reached."""
        return max(self.values, default=None)

    @property
    def name(self) -> str:
        """``trial 3``, or ``base (trial 0)``."""
        return f"base (trial {self.number})" if self.base else f"trial {self.number}"


@dataclass(frozen=True, slots=True)
class Strip:
    """One image on the path of a trial, at falling t/T.

    ``degraded`` and ``restored`` are uint8 [K, C, H, W]: D(x, t), and the sampler's states.
    """

    role: str
    """``best``, ``base`` or ``worst``."""
    trial: int
    degraded: NDArray[np.uint8]
    restored: NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Strips:
    """The strips of one image, with the places t/T of their columns."""

    places: tuple[float, ...]
    sampler: str
    strips: tuple[Strip, ...]


@dataclass(frozen=True, slots=True)
class Importance:
    """How much of the metric's variance each axis explains, with its spread over resamples."""

    method: str
    step: int
    num_trials: int
    num_resamples: int
    shares: Mapping[str, tuple[float, float, float]]
    """By the axis's label: the share over all trials; 5 % and 95 % over resamples of them."""


@dataclass(frozen=True, slots=True)
class SearchResults:
    """A search as it stands."""

    metric: str
    """Path, such as ``eval/sampled/fd_lenet``."""
    lower_is_better: bool
    rungs: tuple[int, ...]
    axes: tuple[SearchAxis, ...]
    trials: tuple[DrawnTrial, ...]
    """By number; 0 is the base."""
    num_trials: int
    """How many were asked for."""
    complete: bool = False
    """Whether no trial is left to train."""
    num_images: int = 0
    """Images that ``removed`` was measured on."""
    base_seeds: tuple[float, ...] = ()
    """The base's metric on the test set, by fresh seed."""
    strips: Strips | None = None
    importance: Importance | None = None

    @property
    def metric_name(self) -> str:
        """The last part of the metric's path."""
        return self.metric.rpartition("/")[2]

    @property
    def quality_label(self) -> str:
        """Label of an axis with the metric: its name, its unit and which way is better."""
        unit = " in dB" if self.metric_name == "psnr" else ""
        better = "lower" if self.lower_is_better else "higher"
        return f"{self.metric_name}{unit} on validation images ({better} is better)"

    @property
    def base(self) -> DrawnTrial | None:
        """Trial 0, once it was asked for."""
        return next((trial for trial in self.trials if trial.base), None)

    @property
    def ranked(self) -> list[DrawnTrial]:
        """Trials with a value, best first."""
        found = [trial for trial in self.trials if trial.rank is not None]
        return sorted(found, key=lambda trial: (trial.rank or 0, trial.number))

    @property
    def leader(self) -> DrawnTrial | None:
        """The best trial beside the base."""
        return next((trial for trial in self.ranked if not trial.base), None)

    @property
    def base_leads(self) -> bool:
        """Whether the base is the best of several: none of the others is ranked above it."""
        base, leader = self.base, self.leader
        if base is None or base.rank is None or leader is None or leader.rank is None:
            return False
        return base.rank <= leader.rank

    def role(self, trial: DrawnTrial) -> str:
        """What the leader, or the base, is called: the word ``best`` is for one of them alone."""
        if trial.base:
            return "best" if self.base_leads else "base"
        return "best but the base" if self.base_leads else "best"

    @property
    def named(self) -> list[DrawnTrial]:
        """The leader and the base, as far as there are such, which pictures name."""
        return [trial for trial in (self.leader, self.base) if trial is not None]

    def name_of(self, trial: DrawnTrial) -> str:
        """The leader or the base by role and name: ``best: trial 3``, ``base (trial 0)``."""
        role = self.role(trial)
        return trial.name if role == "base" else f"{role}: {trial.name}"

    @property
    def num_ranks(self) -> int:
        """The worst rank."""
        return max((trial.rank or 0 for trial in self.trials), default=0)

    def drawn_values(self, trial: DrawnTrial) -> list[tuple[int, float]]:
        """Finite values of ``trial`` by rung, in order."""
        return [(rung, v) for rung, v in sorted(trial.values.items()) if math.isfinite(v)]

    def text(self, value: float) -> str:
        """A value of the metric as text."""
        return metric_text(self.metric_name, value)

    def point_text(self, trial: DrawnTrial) -> str:
        """``num_timesteps 10, ratio 0.5``."""
        pairs = zip(self.axes, trial.point, strict=True)
        return ", ".join(f"{axis.label} {axis.text(v)}" for axis, v in pairs if math.isfinite(v))


def metric_text(name: str, value: float) -> str:
    """A value with the digits that its metric has in tables."""
    return f"{value:{DIGITS[name]}}" if name in DIGITS else number(value)


def spans_decades(values: Sequence[float], least: float = 5.0) -> bool:
    """Whether ``values`` are positive and their largest is ``least`` times the smallest."""
    return bool(values) and min(values) > 0 and max(values) > least * min(values)
