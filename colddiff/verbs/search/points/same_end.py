"""The same end: one factor on a schedule, so that D(x, T) removes as much as the base's does."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from colddiff.degradations import Degradation
from colddiff.degradations.base import DrawImages
from colddiff.degradations.spec import DegradationSpec
from colddiff.errors import SpecError
from colddiff.ports import ShardSource
from colddiff.rng import streams
from colddiff.transforms import normalise
from colddiff.types import Image, ImageShape, Omega
from colddiff.verbs.search.points.space import DEGRADATION, Point, degradation_at, job_at

if TYPE_CHECKING:
    from colddiff.verbs.train.job import TrainJob

TOLERANCE = 1e-3
"""Relative difference of a trial's end from the base's, after its schedule is rounded."""

LOWEST, HIGHEST = 0.01, 100.0
"""Factors that are tried; a path has the base's largest value before it is scaled."""


@dataclass(frozen=True, slots=True)
class Scaled:
    """The factor on a schedule's values, and the end of the rounded schedule."""

    scale: float
    rmse: float


END_IMAGES = 256
"""Images that ends are measured on."""


def end_rows(count: int, n: int = END_IMAGES) -> list[int]:
    """Up to ``n`` of ``count`` images, evenly spread."""
    return [int(row) for row in np.linspace(0, count - 1, min(n, count)).round()]


def end_images(
    source: ShardSource,
    D: Degradation[Any],
    seed: int,
    n: int = END_IMAGES,
    images: DrawImages | None = None,
) -> tuple[Image, dict[str, torch.Tensor]]:
    """The images of ``source`` in ``end_rows``, with omega drawn once for all trials.

    ``images`` draws from the second set, if D mixes one in.
    """
    rows = end_rows(source.manifest.count, n)
    stored = np.concatenate([source.images(row, row + 1) for row in rows])
    return with_omega(stored, D, seed, images)


def with_omega(
    stored: NDArray[Any], D: Degradation[Any], seed: int, images: DrawImages | None = None
) -> tuple[Image, dict[str, torch.Tensor]]:
    """Images [N, C, H, W] on which ends are measured, and their omega."""
    rows = range(len(stored))
    omega = D.draw(len(rows), rng=streams(seed, "search/end", rows), images=images)
    return normalise(torch.from_numpy(stored)), omega


def end_rmse(job: TrainJob, x0: Image, omega: Omega) -> float:
    """Root mean squared error of D(x0, T) against x0, on the scale [0, 1]."""
    return _end(job.degradation, job.shape, x0, omega)


def scaled_to_end(
    base_job: TrainJob, point: Point, target_rmse: float, x0: Image, omega: Omega
) -> Scaled | None:
    """The factor at which the job at ``point`` ends at ``target_rmse``, None where none does.

    Brent's method on the logarithm of the factor. What it finds is checked after rounding; the
    end of the rounded schedule is within ``TOLERANCE`` of the target.
    """

    end = _end_by_scale(base_job, point, x0, omega)
    if abs(end(1.0) - target_rmse) <= 1e-6 * target_rmse:
        candidates: Iterator[float] = iter([1.0])
    else:
        candidates = _candidates(end, target_rmse)
    for scale in candidates:
        rmse = end_rmse(job_at(base_job, point, scale), x0, omega)
        if abs(rmse - target_rmse) <= TOLERANCE * target_rmse:
            return Scaled(scale, rmse)
    return None


def can_reach_end(
    base_job: TrainJob, point: Point, target_rmse: float, x0: Image, omega: Omega
) -> bool:
    """Whether a factor within the range tried degrades as much as the target: two calls of D."""

    end = _end_by_scale(base_job, point, x0, omega)
    slack = TOLERANCE * target_rmse
    return end(LOWEST) - slack <= target_rmse <= end(HIGHEST) + slack


def saturating_field(
    base_job: TrainJob, points: Sequence[Point], target_rmse: float, x0: Image, omega: Omega
) -> str:
    """Path of the field that keeps ``points`` from the end, for the error that refuses a space.

    Each number of the degradation is doubled in turn: the field is the one with which most
    points reach the end, num_timesteps only where no other does; with none, "degradation".
    """
    numbers = _numbers(base_job.degradation)
    reached = dict.fromkeys(numbers, 0)
    for point in points:
        for name in numbers:
            reached[name] += _reaches_doubled(base_job, point, name, target_rmse, x0, omega)
    others = {name: count for name, count in reached.items() if name != "num_timesteps"}
    for counts in (others, reached):
        best = max(counts, key=lambda name: counts[name], default=None)
        if best is not None and counts[best]:
            return f"{DEGRADATION}.{best}"
    return DEGRADATION


def _end(spec: DegradationSpec, shape: ImageShape, x0: Image, omega: Omega) -> float:
    D = spec.build(shape)
    x_T = D.degrade(x0, torch.full((len(x0),), D.num_timesteps), omega)
    return float((x_T - x0).double().square().mean().sqrt()) / 2


def _end_by_scale(
    base_job: TrainJob, point: Point, x0: Image, omega: Omega
) -> Callable[[float], float]:
    def end(scale: float) -> float:
        return _end(degradation_at(base_job, point, scale), base_job.shape, x0, omega)

    return end


def _candidates(end: Callable[[float], float], target: float) -> Iterator[float]:
    """Factors to check after rounding, the most likely first."""
    # An end that saturates just short of the target still counts, within the tolerance.
    for aim in (target, target * (1 - TOLERANCE / 2), target * (1 + TOLERANCE / 2)):
        root = _root(end, aim)
        if root is not None:
            # Rounded, the start and the end of a schedule move apart: nearby factors differ.
            for nudge in (0, 1, -1, 2, -2, 3, -3, 4, -4, 5, -5):
                yield float(f"{root * (1 + nudge * 1e-4):.6g}")
            return


def _root(end: Callable[[float], float], target: float) -> float | None:
    """The factor at which ``end`` is ``target``, to 1e-5; None if it is not in the range tried."""
    from scipy.optimize import brentq

    low, high = math.log(LOWEST), math.log(HIGHEST)
    known = {low: end(LOWEST) - target, high: end(HIGHEST) - target}
    if known[low] > 0 or known[high] < 0:
        return None

    def miss(log_scale: float) -> float:
        if log_scale not in known:
            known[log_scale] = end(math.exp(log_scale)) - target
        return known[log_scale]

    return math.exp(brentq(miss, low, high, xtol=1e-5))


def _numbers(spec: DegradationSpec) -> dict[str, float]:
    """Fields of ``spec`` that are numbers, with their values."""
    values = {name: getattr(spec, name) for name in type(spec).model_fields}
    return {
        name: value
        for name, value in values.items()
        if isinstance(value, int | float) and not isinstance(value, bool)
    }


def _reaches_doubled(
    base_job: TrainJob, point: Point, name: str, target: float, x0: Image, omega: Omega
) -> bool:
    """Whether ``point`` reaches the end with the degradation's number ``name`` doubled."""
    path = f"{DEGRADATION}.{name}"
    value = point.get(path, getattr(base_job.degradation, name))
    for doubled in (2 * value, 2 * value + 1):  # some numbers are odd
        try:
            wider = degradation_at(base_job, point | {path: doubled}, HIGHEST)
            return _end(wider, base_job.shape, x0, omega) >= target * (1 - TOLERANCE)
        except SpecError:
            continue
    return False
