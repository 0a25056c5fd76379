"""Two sets of features compared as sets: KID, precision and recall, copies, bias in n."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from colddiff.errors import DataError
from colddiff.evaluation.metrics import FeatureStatistics, frechet_distance
from colddiff.rng import stream

Float64 = NDArray[np.float64]

MOST = 5000
"""Images of each set that are compared, drawn from it: distances of all pairs are computed."""
SUBSET, NUM_SUBSETS = 1000, 100
NEAREST = 5
CHUNK = 512
COPY = 1 / 3
"""A sample is a copy of a real image within this part of that image's distance to any other."""
SIZES = 8


@dataclass(frozen=True, slots=True)
class KernelDistance:
    """Kernel distance (KID): its mean over subsets, and their standard deviation.

    No ``error`` where a single subset is all images: its spread is unknown, and not 0.
    """

    value: float
    error: float | None


@dataclass(frozen=True, slots=True)
class Coverage:
    """How samples cover reference images and are covered by them, each in 0..1, density above."""

    precision: float
    recall: float
    density: float
    coverage: float


@dataclass(frozen=True, slots=True)
class Copies:
    """How near samples come to single reference images, such as those a network was trained on."""

    copied: float
    """Part of the samples, 0..1, that are copies of one."""
    nearest: float
    """Mean distance to the nearest one, in that of reference images among themselves (about 1)."""


def kernel_distance(
    a: Float64,
    b: Float64,
    *,
    subset: int = SUBSET,
    num_subsets: int = NUM_SUBSETS,
    seed: int = 0,
) -> KernelDistance:
    """KID (Binkowski et al. 2018): squared MMD with the kernel (x.y / F + 1)^3, unbiased.

    It can be negative, and does not depend on the number of images as Frechet distances do.

    Args:
        a: features [N, F]; b: [M, F].
        subset: images of each side in a subset, drawn without replacement; at most N and M.
        num_subsets: how many of them; a single one if they would be all images.
        seed: of the subsets.

    Raises:
        DataError: fewer than two images on a side, different F, NaN or inf.
    """
    _check(a, b, 2)
    size = min(subset, len(a), len(b))
    rounds = num_subsets if size < max(len(a), len(b)) else 1
    rng, found = stream(seed, "evaluation/kernel_distance"), []
    for _ in range(rounds):
        x = a[rng.choice(len(a), size, replace=False)]
        y = b[rng.choice(len(b), size, replace=False)]
        found.append(unbiased_mmd(x, y))
    return KernelDistance(float(np.mean(found)), float(np.std(found)) if rounds > 1 else None)


def unbiased_mmd(x: Float64, y: Float64) -> float:
    """The unbiased squared MMD of x [m, F] and y [m, F] with the kernel of KID."""
    width, m = x.shape[1], len(x)

    def kernel(u: Float64, v: Float64) -> Float64:
        return np.asarray((u @ v.T / width + 1) ** 3)

    xx, yy, xy = kernel(x, x), kernel(y, y), kernel(x, y)
    within = (xx.sum() - np.trace(xx) + yy.sum() - np.trace(yy)) / (m * (m - 1))
    return float(within - 2 * xy.mean())


def coverage_of(reference: Float64, samples: Float64, nearest: int = NEAREST) -> Coverage:
    """Precision and recall (Kynkaanniemi et al. 2019), density and coverage (Naeem et al. 2020).

    A point lies in the manifold of a set if it is nearer to one of its points than that point's
    ``nearest``-th neighbour within the set. Density can exceed 1.

    Args:
        reference: features of real images [N, F]; samples: [M, F].
        nearest: k of the neighbourhoods; fewer than N and M.

    Raises:
        DataError: too few images on a side, different F, NaN or inf.
    """
    _check(reference, samples, nearest + 1)
    real_radius, made_radius = (_radii(side, nearest) for side in (reference, samples))
    inside = np.zeros(len(samples))
    recalled = np.zeros(len(reference), dtype=bool)
    covered = np.zeros(len(reference), dtype=bool)
    for start in range(0, len(reference), CHUNK):
        rows = slice(start, start + CHUNK)
        distance = _distances(reference[rows], samples)
        within = distance < real_radius[rows, None]
        inside += within.sum(axis=0)
        recalled[rows] = (distance < made_radius[None, :]).any(axis=1)
        covered[rows] = within.any(axis=1)
    return Coverage(
        float((inside > 0).mean()),
        float(recalled.mean()),
        float(inside.mean() / nearest),
        float(covered.mean()),
    )


def copies_of(reference: Float64, samples: Float64) -> Copies:
    """Samples that are copies of reference images, by distances of their features.

    A sample is a copy where it is nearer to a reference image than ``COPY`` of that image's own
    distance to its nearest neighbour: what repeats a training image, and not what looks like it.

    Args:
        reference: features of real images [N, F]; samples: [M, F].

    Raises:
        DataError: fewer than two images on a side, different F, NaN or inf.
    """
    _check(reference, samples, 2)
    own = _radii(reference, 1)
    nearest, copied = [], []
    for start in range(0, len(samples), CHUNK):
        distance = _distances(samples[start : start + CHUNK], reference)
        nearest.append(distance.min(axis=1))
        copied.append((distance < COPY * own).any(axis=1))
    usual = float(own.mean())
    mean = float(np.concatenate(nearest).mean())
    return Copies(float(np.concatenate(copied).mean()), mean / usual if usual else 0.0)


def extrapolated_distance(
    samples: Float64, reference: FeatureStatistics, *, sizes: int = SIZES, seed: int = 0
) -> float:
    """The Frechet distance that infinitely many samples would have (Chong and Forsyth 2020).

    Its bias is near proportional to 1 / n: a line through the distances of ``sizes`` subsets, from
    half of the samples to all of them, meets 1 / n = 0 there. ``reference`` is taken as it is.

    Args:
        samples: features [N, F], in the order of the set.
        reference: statistics of the real images' features.

    Raises:
        DataError: fewer than four samples, different F, NaN or inf.
    """
    if len(samples) < 4:
        raise DataError(f"an extrapolation needs 4 samples, got {len(samples)}; use more")
    rng = stream(seed, "evaluation/extrapolated")
    counts = np.unique(np.linspace(len(samples) / 2, len(samples), sizes).round().astype(int))
    found = [
        frechet_distance(FeatureStatistics.of(samples[chosen]), reference)
        for chosen in (rng.choice(len(samples), count, replace=False) for count in counts)
    ]
    return float(np.polyfit(1 / counts, found, 1)[1])


def drawn_rows(count: int, seed: int, side: str) -> NDArray[np.bool_]:
    """Which of ``count`` images of a set are compared: all, or ``MOST`` drawn ones."""
    order = stream(seed, f"evaluation/set_metrics/{side}").permutation(count)
    return np.asarray(order < MOST)


def _radii(points: Float64, nearest: int) -> Float64:
    """The distance of each point to its ``nearest``-th neighbour."""
    found = []
    for start in range(0, len(points), CHUNK):
        distance = _distances(points[start : start + CHUNK], points)
        # The nearest of all is the point itself.
        found.append(np.partition(distance, nearest, axis=1)[:, nearest])
    return np.concatenate(found)


def _distances(x: Float64, y: Float64) -> Float64:
    squared = (x**2).sum(axis=1)[:, None] + (y**2).sum(axis=1)[None, :] - 2 * x @ y.T
    return np.asarray(np.sqrt(squared.clip(min=0.0)))


def _check(a: Float64, b: Float64, least: int) -> None:
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[1]:
        raise DataError(f"set metrics: features {list(a.shape)} and {list(b.shape)} do not match")
    if min(len(a), len(b)) < least:
        raise DataError(
            f"set metrics need {least} images on each side, got {len(a)} and {len(b)}; use more"
        )
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        raise DataError("set metrics: the features hold NaN or inf; check the images")
