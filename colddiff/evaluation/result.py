"""What an evaluation found: metrics, where they come from, and what can be shown."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from colddiff.evaluation.image_scores import Candidate, nearest_median
from colddiff.evaluation.metrics import FeatureStatistics
from colddiff.evaluation.sums import EvaluationSums, Pictures
from colddiff.evaluation.trajectory import Trajectory


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Metrics by path (finite numbers only), their provenance, and sample images.

    ``provenance`` is JSON-ready; its ``omitted`` names each metric that is missing, and why.
    ``trajectory``: that of the sampler shown.
    ``sums``: all that was kept of single images and severities.
    """

    metrics: Mapping[str, float]
    provenance: Mapping[str, Any]
    trajectory: Trajectory | None
    sums: EvaluationSums

    @property
    def pictures(self) -> Pictures:
        """The first few images, uint8 [k, C, H, W] by column."""
        return self.sums.pictures

    @property
    def reference(self) -> FeatureStatistics:
        """Feature statistics of the test images."""
        return self.sums.reference

    @property
    def median_image(self) -> Candidate | None:
        """The image shown for the median error; None if no images were kept."""
        errors = self.sums.columns[self.sums.judged_by].scores.mse
        return next(iter(nearest_median(self.sums.candidates, errors)), None)
