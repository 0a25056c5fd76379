"""Sums over evaluated images, which add up over batches and workers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from colddiff.evaluation.metrics import FeatureStatistics, ImageErrors
from colddiff.evaluation.trajectory import Trajectory

Pictures = Mapping[str, NDArray[np.uint8]]


@dataclass(frozen=True, slots=True)
class Column:
    """Sums over the images of one column of the table."""

    errors: ImageErrors
    features: FeatureStatistics

    def merge(self, other: Column) -> Column:
        """The sums over both sets of images."""
        return Column(self.errors.merge(other.errors), self.features.merge(other.features))


@dataclass(frozen=True, slots=True)
class Tally:
    """What was summed over some of the test images; tallies of disjoint images merge.

    ``halves``: features of the test images themselves, in two disjoint halves. ``pictures``: the
    first few images, uint8 [k, C, H, W] by column; ``trajectory``: how one sampler made them.
    """

    columns: Mapping[str, Column]
    halves: tuple[FeatureStatistics | None, FeatureStatistics | None]
    pictures: Pictures = field(default_factory=dict)
    trajectory: Trajectory | None = None

    @property
    def reference(self) -> FeatureStatistics:
        """Features of all test images seen."""
        both = merged(*self.halves)
        assert both is not None
        return both

    def merge(self, other: Tally) -> Tally:
        """The tally of both sets of images; pictures are those of the first."""
        return Tally(
            {name: column.merge(other.columns[name]) for name, column in self.columns.items()},
            (
                merged(self.halves[0], other.halves[0]),
                merged(self.halves[1], other.halves[1]),
            ),
            self.pictures or other.pictures,
            self.trajectory or other.trajectory,
        )


def merged(a: FeatureStatistics | None, b: FeatureStatistics | None) -> FeatureStatistics | None:
    """The statistics of both sets, either of which may be empty."""
    return a.merge(b) if a is not None and b is not None else a or b
