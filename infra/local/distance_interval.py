"""How sure one sample set is nearer to a reference than another: a paired bootstrap interval.

    python infra/local/distance_interval.py A B REFERENCE [--features resnet20]

A and B are outputs of generate jobs with the same seeds, REFERENCE is a packed set. Prints the
Frechet distances and the 95 % interval of that of A less that of B: images are drawn with
replacement, the same seeds for A and B and independently for the reference. It says how sure the
difference is for these samples of these checkpoints, not for another training.
"""

from __future__ import annotations

import argparse

import numpy as np
import torch
from numpy.typing import NDArray

from colddiff.data.open import open_samples, open_shards
from colddiff.evaluation.metrics import FeatureStatistics, frechet_distance
from colddiff.features.open import open_features
from colddiff.ports import FeatureExtractor, ShardSource

RESAMPLES = 300


def features_of(extractor: FeatureExtractor, source: ShardSource) -> NDArray[np.float64]:
    """float64 [N, F] of all images of a set, in its order."""
    count = source.manifest.count
    batches = [source.images(i, min(i + 100, count)) for i in range(0, count, 100)]
    found = [extractor.features(torch.from_numpy(np.array(batch))) for batch in batches]
    return np.concatenate(found)


def distance(samples: NDArray[np.float64], reference: NDArray[np.float64]) -> float:
    """The Frechet distance of two sets of features."""
    return frechet_distance(FeatureStatistics.of(samples), FeatureStatistics.of(reference))


def main() -> None:
    """Print both distances, their difference and its interval."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("a")
    parser.add_argument("b")
    parser.add_argument("reference")
    parser.add_argument("--features", default="resnet20", help="kind, as `colddiff features` lists")
    parser.add_argument("--own", action="store_true", help="against the images they were made from")
    given = parser.parse_args()
    torch.set_num_threads(1)
    extractor = open_features(given.features)
    a, b = (features_of(extractor, open_samples(uri)) for uri in (given.a, given.b))
    real = features_of(extractor, open_shards(given.reference))
    if len(a) != len(b):
        parser.error(f"{len(a)} and {len(b)} samples: pairs need the same seeds")
    if given.own:
        real = real[: len(a)]
    rng = np.random.default_rng(0)
    found = []
    for _ in range(RESAMPLES):
        chosen, others = rng.integers(0, len(a), len(a)), rng.integers(0, len(real), len(real))
        others = chosen if given.own else others
        found.append(distance(a[chosen], real[others]) - distance(b[chosen], real[others]))
    low, high = np.quantile(found, [0.025, 0.975])
    print(f"A {distance(a, real):.3f}  B {distance(b, real):.3f}  n {len(a)} against {len(real)}")
    print(f"A - B: {distance(a, real) - distance(b, real):+.3f}, 95 % {low:+.3f} to {high:+.3f}")


if __name__ == "__main__":
    main()
