"""Samples against a reference set: the Frechet distance of two sets of images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from colddiff.errors import DataError
from colddiff.evaluation.best import misfit, notes_on_sets
from colddiff.evaluation.bounds import SAMPLED_IMAGES, refuse_more_images
from colddiff.evaluation.evaluator import images_at
from colddiff.evaluation.metrics import FeatureStatistics, add_distance
from colddiff.evaluation.partition import BatchInOnePart
from colddiff.evaluation.set_metrics import (
    SUBSET,
    copies_of,
    coverage_of,
    drawn_rows,
    extrapolated_distance,
    kernel_distance,
)
from colddiff.evaluation.sums import merged
from colddiff.ports import FeatureExtractor, ShardSource
from colddiff.rng import stream
from colddiff.spec import digest

COLUMN = "eval/generated"
NO_ROWS: NDArray[np.float64] = np.empty((0, 0))


@dataclass(frozen=True, slots=True)
class SetSums:
    """Feature statistics of some samples, and of some reference images in two disjoint halves."""

    samples: FeatureStatistics | None
    halves: tuple[FeatureStatistics | None, FeatureStatistics | None]
    rows: tuple[NDArray[np.float64], NDArray[np.float64]] = (NO_ROWS, NO_ROWS)
    """Features [n, F] of the samples and reference images that set metrics compare."""

    def merge(self, other: SetSums) -> SetSums:
        """The sums over both sets of images, which must be disjoint."""
        return SetSums(
            merged(self.samples, other.samples),
            (
                merged(self.halves[0], other.halves[0]),
                merged(self.halves[1], other.halves[1]),
            ),
            (_joined(self.rows[0], other.rows[0]), _joined(self.rows[1], other.rows[1])),
        )


@dataclass(frozen=True, slots=True)
class SetComparison:
    """Compares two sets of images, batch by batch; implements ``BatchedEvaluation``.

    Args:
        samples: generated images.
        reference: the images they are compared with; of the same shape.
        extractor: the network whose features are compared.
        num_samples: number of samples, evenly spread over the set; None for all.
        batch_size: images per batch.
        seed: of the random halves of the reference that are compared with each other.
        set_metrics: KID, precision, recall, density, coverage, copies, and the distance of
            infinitely many samples too; of ``MOST`` images a side.
    """

    samples: ShardSource
    reference: ShardSource
    extractor: FeatureExtractor
    num_samples: int | None = None
    batch_size: int = 64
    seed: int = 0
    set_metrics: bool = False

    def __post_init__(self) -> None:
        shapes = [
            (image.channels, image.height, image.width)
            for image in (self.samples.manifest.image, self.reference.manifest.image)
        ]
        if shapes[0] != shapes[1]:
            made, wanted = ("x".join(map(str, shape)) for shape in shapes)
            raise DataError(
                f"samples: images are {made}, the reference's {wanted}; pack the reference with "
                f"--image-size {shapes[0][1]} --channels {shapes[0][0]}"
            )
        refuse_more_images(
            self.num_samples, self.samples.manifest.count, "num_images", SAMPLED_IMAGES
        )

    @property
    def num_images(self) -> int:
        """Number of images whose features are computed: the samples, then the whole reference."""
        return self._chosen + self.reference.manifest.count

    @property
    def at_once(self) -> int:
        """One: the features' networks fill the cores with a batch."""
        return 1

    @property
    def _chosen(self) -> int:
        return self.samples.manifest.count if self.num_samples is None else self.num_samples

    def batches(self) -> list[range]:
        """Positions 0..num_images - 1 in batches of either samples or reference images."""
        n, size = self._chosen, self.batch_size
        starts = [*range(0, n, size), *range(n, self.num_images, size)]
        return [
            range(start, min(start + size, n if start < n else self.num_images)) for start in starts
        ]

    def batch(self, positions: range) -> BatchInOnePart:
        """Feature statistics of the images at ``positions``."""
        return BatchInOnePart(partial(self._sums, positions))

    def _sums(self, positions: range) -> SetSums:
        n = self._chosen
        if positions.start < n:
            count = self.samples.manifest.count
            images = images_at(self.samples, [position * count // n for position in positions])
            features = self._features(images)
            rows = self._rows(features, positions, n, "samples")
            return SetSums(FeatureStatistics.of(features), (None, None), (rows, NO_ROWS))
        indices = range(positions.start - n, positions.stop - n)
        images = images_at(self.reference, indices)
        size = self.reference.manifest.count
        # Drawn at random, not every other image: a data set may list its classes in turn.
        order = stream(self.seed, "evaluation/halves").permutation(size)
        first = order[indices.start : indices.stop] < size // 2
        features = self._features(images)
        halves = [
            FeatureStatistics.of(features[side]) if side.any() else None for side in (first, ~first)
        ]
        rows = self._rows(features, indices, size, "reference")
        return SetSums(None, (halves[0], halves[1]), (NO_ROWS, rows))

    def _rows(
        self, features: NDArray[np.float64], positions: range, count: int, side: str
    ) -> NDArray[np.float64]:
        if not self.set_metrics:
            return NO_ROWS
        return features[drawn_rows(count, self.seed, side)[positions.start : positions.stop]]

    def _features(self, images: NDArray[Any]) -> NDArray[np.float64]:
        if images.dtype == np.uint16:
            images = np.rint(images / 257)
        rounded = torch.from_numpy(images.astype(np.uint8))
        return np.asarray(self.extractor.features(rounded), dtype=np.float64)

    def summary(self, sums: SetSums) -> tuple[dict[str, float], dict[str, Any]]:
        """Metrics by path, and their provenance (JSON-ready)."""
        fd = self.extractor.metric
        reference = merged(*sums.halves)
        metrics: dict[str, float] = {}
        omitted: dict[str, str] = {}
        add_distance(metrics, omitted, f"{COLUMN}/{fd}", (sums.samples, reference))
        add_distance(metrics, omitted, f"eval/floor/{fd}", sums.halves)
        if self.set_metrics:
            self._compare_rows(metrics, omitted, sums)
        return metrics, self._provenance(sums.samples, reference, omitted)

    def _compare_rows(
        self, metrics: dict[str, float], omitted: dict[str, str], sums: SetSums
    ) -> None:
        samples, reference = sums.rows
        # `fd_lenet` -> `kid_lenet`; the features of `fid` need no name.
        name = self.extractor.metric.removeprefix("fid").removeprefix("fd")
        try:
            kid = kernel_distance(samples, reference, seed=self.seed)
            coverage, copies = coverage_of(reference, samples), copies_of(reference, samples)
            all_real = merged(*sums.halves)
            assert all_real is not None
            limit = extrapolated_distance(samples, all_real, seed=self.seed)
        except DataError as error:
            omitted[f"{COLUMN}/kid{name}"] = str(error)
            return
        kernel = {"kid": kid.value}
        if kid.error is None:
            few = f"one subset of all images: over {SUBSET} images on a side have several"
            omitted[f"{COLUMN}/kid_error{name}"] = few
        else:
            kernel["kid_error"] = kid.error
        values = kernel | asdict(coverage) | asdict(copies)
        metrics |= {f"{COLUMN}/{metric}{name}": value for metric, value in values.items()}
        metrics[f"{COLUMN}/extrapolated_{self.extractor.metric}"] = limit

    def _provenance(
        self,
        samples: FeatureStatistics | None,
        reference: FeatureStatistics | None,
        omitted: Mapping[str, str],
    ) -> dict[str, Any]:
        n, m = (0 if side is None else side.n for side in (samples, reference))
        features = reference.mean.size if reference is not None else 0
        image = self.reference.manifest.image
        shape = (image.channels, image.height, image.width)
        made, wanted = self.samples.manifest, self.reference.manifest
        return {
            "n": n,
            "n_reference": m,
            "samples_manifest": made.digest,
            "samples_there": made.count,
            "test_manifest": wanted.digest,
            "reference_sha256": digest({"manifest": wanted.digest, "num_images": m}),
            "metric": self.extractor.metric,
            "feature_weights_sha256": self.extractor.weights_sha256,
            "protocol": f"8 bit, {self.extractor.protocol}",
            "seed": self.seed,
            "omitted": dict(omitted),
            "misfit": misfit(self.extractor.metric, shape, min(n, m)),
            "notes": notes_on_sets(self.extractor.metric, shape, n, m, features),
        }


def _joined(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.concatenate([a, b]) if len(a) and len(b) else a if len(a) else b
