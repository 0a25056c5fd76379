"""How sure one sample set is nearer to a reference than another: a paired bootstrap interval.

    python infra/local/distance_interval.py A B REFERENCE [--features resnet20] [--own]

A and B are outputs of generate jobs with the same seeds, REFERENCE is a packed set. Prints the
Frechet distances and the 95 % interval of that of A less that of B: images are drawn with
replacement, the same seeds for A and B and independently for the reference. It says how sure the
difference is for these samples of these checkpoints, not for another training.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from colddiff.data.open import open_samples, open_shards
from colddiff.errors import ColddiffError
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


def interval(
    a: NDArray[np.float64], b: NDArray[np.float64], real: NDArray[np.float64], *, own: bool = False
) -> tuple[float, float]:
    """95 % of the distances of ``a`` less those of ``b``, over ``RESAMPLES`` draws of images.

    ``own``: row i of ``real`` is what row i of ``a`` and ``b`` was made from, and is drawn with it.
    """
    rng = np.random.default_rng(0)
    found = []
    for _ in range(RESAMPLES):
        chosen, others = rng.integers(0, len(a), len(a)), rng.integers(0, len(real), len(real))
        others = chosen if own else others
        found.append(distance(a[chosen], real[others]) - distance(b[chosen], real[others]))
    low, high = np.quantile(found, [0.025, 0.975])
    return float(low), float(high)


def main(words: Sequence[str] | None = None) -> None:
    """Print both distances, their difference and its interval."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("a", metavar="A", help="OUT of a generate job")
    parser.add_argument("b", metavar="B", help="OUT of another one, with the same seeds")
    parser.add_argument("reference", metavar="REFERENCE", help="URI of a packed set")
    parser.add_argument(
        "--features",
        default="resnet20",
        help="kind, as `colddiff features` lists (default: %(default)s)",
    )
    parser.add_argument("--own", action="store_true", help="against the images they were made from")
    given = parser.parse_args(words)
    torch.set_num_threads(1)
    try:
        extractor = open_features(given.features)
        a, b = (features_of(extractor, open_samples(uri)) for uri in (given.a, given.b))
        real = features_of(extractor, open_shards(given.reference))
    except ColddiffError as error:
        parser.exit(error.exit_code, f"{parser.prog}: {error}\n")
    if len(a) != len(b):
        parser.error(f"{len(a)} and {len(b)} samples: pairs need the same seeds")
    if given.own:
        if len(real) < len(a):
            parser.error(f"--own: {len(real)} images are fewer than the {len(a)} made from them")
        real = real[: len(a)]
    low, high = interval(a, b, real, own=given.own)
    print(f"A {distance(a, real):.3f}  B {distance(b, real):.3f}  n {len(a)} against {len(real)}")
    print(f"A - B: {distance(a, real) - distance(b, real):+.3f}, 95 % {low:+.3f} to {high:+.3f}")


if __name__ == "__main__":
    main()
