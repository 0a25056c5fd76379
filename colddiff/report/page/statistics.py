"""Intervals: of a mean over seeds, and of paired differences over test images."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from colddiff.errors import DataError
from colddiff.rng import stream

LEVEL = 0.95
RESAMPLES = 2000
CHUNK = 64
KEPT = 1000
"""Up to so many images, how often each is drawn is kept: a page compares some thirty pairs."""
Float64 = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Interval:
    """An estimate and its 95 % interval; ``n`` values are behind it.

    Without an interval (one seed) ``low`` and ``high`` are None.
    """

    value: float
    low: float | None
    high: float | None
    n: int

    def parts_from(self, other: Interval) -> bool:
        """Whether both have intervals, and these do not overlap."""
        if self.low is None or self.high is None or other.low is None or other.high is None:
            return False
        return self.high < other.low or other.high < self.low


def mean_interval(values: Sequence[float]) -> Interval:
    """Mean and Student's t interval of independent runs; no interval for a single one.

    >>> found = mean_interval([1.0, 2.0, 3.0])
    >>> found.value, round(found.low, 2), round(found.high, 2)
    (2.0, -0.48, 4.48)
    """
    found = np.asarray(values, dtype=np.float64)
    if not len(found) or not np.isfinite(found).all():
        raise DataError("interval: expected one or more finite values")
    mean = float(found.mean())
    if len(found) == 1:
        return Interval(mean, None, None, 1)
    error = float(found.std(ddof=1)) / math.sqrt(len(found))
    # Only here, and not scipy.stats: each job writes a page of its own, and waits for the import.
    from scipy.special import stdtrit

    half = float(stdtrit(len(found) - 1, (1 + LEVEL) / 2)) * error
    return Interval(mean, mean - half, mean + half, len(found))


def paired_difference(a: Float64, b: Float64, metric: str) -> Interval:
    """``metric`` of a minus that of b over the same images, with a bootstrap interval.

    Images are drawn with replacement ``RESAMPLES`` times, the same ones for both, by a stream of
    their own: equal arguments give an equal interval.

    Args:
        a: per image, the mean squared error for ``rmse`` and ``psnr``, SSIM for ``ssim``; [n].
        b: the same images of another column.
        metric: ``rmse`` and ``psnr`` are functions of the mean over the images, as in evaluations.

    Raises:
        DataError: fewer than two images, unequal numbers of them, or values that are not finite.
    """
    if a.shape != b.shape or len(a) < 2:
        raise DataError(f"paired difference: {len(a)} and {len(b)} images; give 2 or more pairs")
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        raise DataError("paired difference: the scores of some images are not finite")
    chunks = _kept_weights(len(a)) if len(a) <= KEPT else _weights(len(a))
    means = np.concatenate([weights @ np.stack([a, b], axis=1) for weights in chunks])
    spread = _metric(means[:, 0], metric) - _metric(means[:, 1], metric)
    low, high = np.quantile(spread, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    value = float(_metric(a.mean(), metric) - _metric(b.mean(), metric))
    return Interval(value, float(low), float(high), len(a))


def _weights(count: int) -> Iterator[Float64]:
    """What each image counts in the mean of a resample, [CHUNK, count] at a time."""
    rng = stream(0, "report/bootstrap")
    rows = np.arange(CHUNK)[:, None] * count
    for _ in range(0, RESAMPLES, CHUNK):
        drawn = rng.integers(0, count, size=(CHUNK, count)) + rows
        times = np.bincount(drawn.ravel(), minlength=CHUNK * count)
        yield times.reshape(CHUNK, count) / count


@lru_cache(maxsize=2)
def _kept_weights(count: int) -> tuple[Float64, ...]:
    return tuple(_weights(count))


def _metric(mean: Float64, metric: str) -> Float64:
    if metric == "ssim":
        return mean
    root = np.sqrt(mean)
    return root if metric == "rmse" else -20 * np.log10(np.maximum(root, 1e-12))
