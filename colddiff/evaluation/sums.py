"""Sums over evaluated images, which merge over batches and workers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from colddiff.evaluation.by_severity import BySeverity
from colddiff.evaluation.image_scores import Candidate, ImageScores, worth_showing
from colddiff.evaluation.metrics import FeatureStatistics, ImageErrors
from colddiff.evaluation.trajectory import Trajectory

Pictures = Mapping[str, NDArray[np.uint8]]


@dataclass(frozen=True, slots=True)
class Column:
    """Sums over the images of one column of an evaluation, and the scores of each of them."""

    errors: ImageErrors
    features: FeatureStatistics
    scores: ImageScores

    def merge(self, other: Column) -> Column:
        """The sums over both sets of images."""
        return Column(
            self.errors.merge(other.errors),
            self.features.merge(other.features),
            self.scores.merge(other.scores),
        )


@dataclass(frozen=True, slots=True)
class EvaluationSums:
    """Sums over some of the test images; those of disjoint images merge.

    ``halves``: feature statistics of the test images themselves, in two disjoint halves.
    ``pictures``: the first few images, uint8 [k, C, H, W] by column; ``trajectories``: the steps
    by which samplers made them, by column; ``by_severity``: what D and R do to a first batch.
    ``candidates``: further images that may be shown, chosen by their error in ``judged_by``.
    """

    columns: Mapping[str, Column]
    halves: tuple[FeatureStatistics | None, FeatureStatistics | None]
    pictures: Pictures = field(default_factory=dict)
    trajectories: Mapping[str, Trajectory] = field(default_factory=dict)
    by_severity: BySeverity | None = None
    candidates: tuple[Candidate, ...] = ()
    judged_by: str = ""

    @property
    def reference(self) -> FeatureStatistics:
        """Feature statistics of all test images summed."""
        both = merged(*self.halves)
        assert both is not None
        return both

    def merge(self, other: EvaluationSums) -> EvaluationSums:
        """The sums over both sets of images; pictures are those of the first that has any."""
        columns = {name: column.merge(other.columns[name]) for name, column in self.columns.items()}
        both = (*self.candidates, *other.candidates)
        return EvaluationSums(
            columns,
            (
                merged(self.halves[0], other.halves[0]),
                merged(self.halves[1], other.halves[1]),
            ),
            self.pictures or other.pictures,
            self.trajectories or other.trajectories,
            self.by_severity or other.by_severity,
            worth_showing(both, columns[self.judged_by].scores.mse) if both else (),
            self.judged_by,
        )


def merged(a: FeatureStatistics | None, b: FeatureStatistics | None) -> FeatureStatistics | None:
    """The merged statistics of two sets, either of which may be empty (None)."""
    return a.merge(b) if a is not None and b is not None else a or b
