"""Frechet distances, KID, coverage and near duplicates at the sizes at which they are reported."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from colddiff.data.near_duplicates import fingerprints, near_pairs
from colddiff.evaluation.metrics import FeatureStatistics, frechet_distance
from colddiff.evaluation.set_metrics import coverage_of, kernel_distance
from colddiff.features.open import open_features
from tests.bench.timing import seconds

WIDTH = 2048
"""Of Inception's features."""
STREAMED = """
import json, resource, sys, time
import torch
from colddiff.features.open import open_features
from colddiff.evaluation.metrics import FeatureStatistics
began, found, extractor = time.perf_counter(), None, open_features("lenet")
for start in range(0, int(sys.argv[1]), 500):
    images = torch.randint(0, 256, (500, 1, 16, 16), dtype=torch.uint8)
    part = FeatureStatistics.of(extractor.features(images))
    found = part if found is None else found.merge(part)
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(json.dumps({"seconds": time.perf_counter() - began, "peak_mb": peak / 1024, "n": found.n}))
"""


def measure(n: int, repeats: int) -> list[dict[str, Any]]:
    """Seconds, with the floor beside them: the one decomposition that each distance needs."""
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((n, WIDTH)) @ (rng.standard_normal((WIDTH, WIDTH)) / 45)
    a, b = FeatureStatistics.of(rows[::2]), FeatureStatistics.of(rows[1::2] * 1.05 + 0.01)
    covariance = a.covariance
    return [
        {
            "case": f"Frechet distance, {WIDTH} features",
            "distance_s": seconds(lambda: frechet_distance(a, b), repeats),
            "one_eigh_s": seconds(lambda: np.linalg.eigh(covariance), repeats),
            "statistics_s": seconds(lambda: FeatureStatistics.of(rows), repeats),
        },
        _streamed(n),
        {
            "case": f"{n:,} digits of 16 px, lenet",
            "features_s": _timed(_lenet_of(n)),
        },
        _sets(rows),
        _duplicates(6 * n, n),
    ]


def _streamed(n: int) -> dict[str, Any]:
    """In a process of its own, for its peak memory."""
    done = subprocess.run(
        [sys.executable, "-c", STREAMED, str(n)], check=True, capture_output=True, text=True
    )
    return {"case": f"{n:,} images streamed, in parts of 500", **json.loads(done.stdout)}


def _lenet_of(n: int) -> Callable[[], object]:
    extractor = open_features("lenet")
    images = torch.randint(0, 256, (n, 1, 16, 16), dtype=torch.uint8)
    parts = [images[start : start + 500] for start in range(0, n, 500)]
    return lambda: [FeatureStatistics.of(extractor.features(part)) for part in parts]


def _sets(rows: NDArray[np.float64]) -> dict[str, Any]:
    real, made = rows[::2], rows[1::2]
    return {
        "case": f"{len(real):,} against {len(made):,} images, {WIDTH} features",
        "kid_s": _timed(lambda: kernel_distance(real, made)),
        "coverage_s": _timed(lambda: coverage_of(real, made)),
    }


def _duplicates(many: int, few: int) -> dict[str, Any]:
    rng = np.random.default_rng(1)
    # Smooth, as images are: noise alone has no two hashes that share a band.
    small = rng.integers(0, 256, (many + few, 1, 7, 7), np.uint8)

    def source(first: int, count: int) -> Any:
        def images(start: int, stop: int) -> NDArray[np.uint8]:
            return small[first + start : first + stop].repeat(4, axis=2).repeat(4, axis=3)

        return SimpleNamespace(manifest=SimpleNamespace(count=count), images=images)

    began = time.perf_counter()
    a, b = fingerprints(source(0, many)), fingerprints(source(many, few))
    printed = time.perf_counter()
    near_pairs(a, b)
    return {
        "case": f"near duplicates of {many:,} images against {few:,}, 28 px, decoded",
        "fingerprints_s": printed - began,
        "pairs_s": time.perf_counter() - printed,
    }


def _timed(work: Callable[[], object]) -> float:
    return seconds(work, 1, 0)
