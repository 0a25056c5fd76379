"""Evaluation of many lists of severities on the same images: what they share is computed once."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from colddiff.checkpoints.pinned_inputs import load_pinned_checkpoint
from colddiff.data.open import open_second_set, open_transformed
from colddiff.errors import ColddiffError
from colddiff.evaluation.evaluator import EvaluationInputs, Evaluator, image_errors
from colddiff.evaluation.metrics import FeatureStatistics, ImageErrors, frechet_distance
from colddiff.features.open import open_features
from colddiff.jobs.device import device_of
from colddiff.jobs.job import ResourcesSpec
from colddiff.jobs.resolve import ResolvedJob
from colddiff.restorers import for_inference
from colddiff.rng import stream
from colddiff.types import Image, Severity
from colddiff.verbs.search.job import SearchJob
from colddiff.verbs.search.severities.journal import ListResult
from colddiff.verbs.search.severities.lists import SeverityList
from colddiff.verbs.search.severities.settings import CheckpointBase, base_evaluation
from colddiff.verbs.search.severities.shared_calls import SharedCalls

GROUPS = 20
"""Groups of images that are left out in turn, for the standard error of a difference."""
MOST_INPUT_BYTES = 1024 * 2**20
"""Of degraded images that are kept; more are degraded again for each list."""

_Features = NDArray[np.float64]


@dataclass(slots=True)
class _Sums:
    """Sums over the images of one group: errors, and the statistics of both sides' features."""

    errors: ImageErrors
    restored: FeatureStatistics
    originals: FeatureStatistics

    def merge(self, other: _Sums) -> _Sums:
        return _Sums(
            self.errors.merge(other.errors),
            self.restored.merge(other.restored),
            self.originals.merge(other.originals),
        )

    def metrics(self, distance: str) -> dict[str, float]:
        """By name; what these images do not have is left out."""
        found = {"rmse": self.errors.rmse, "psnr": self.errors.psnr}
        if self.errors.ssim is not None:
            found["ssim"] = self.errors.ssim
        if self.restored.n > 1:
            found[distance] = frechet_distance(self.restored, self.originals)
        return {name: value for name, value in found.items() if math.isfinite(value)}


@dataclass(slots=True)
class ListEvaluator:
    """Measures lists of severities of one checkpoint on one set of images.

    The network is loaded, and images are degraded and their features computed, once; calls of the
    network are shared between lists that begin alike. The numbers are those of `submit evaluate`.
    """

    evaluator: Evaluator
    shared: SharedCalls = field(default_factory=SharedCalls)
    _inputs: dict[int, EvaluationInputs] = field(default_factory=dict)
    _originals: dict[int, _Features] = field(default_factory=dict)

    def measure(
        self,
        chosen: SeverityList,
        *,
        groups: int = 0,
        on_call: Callable[[], None] = lambda: None,
    ) -> ListResult:
        """The metrics of ``chosen``; with ``groups``, each of them without each group as well.

        ``on_call`` is called before each call of the network on a batch, and may raise. Raises
        DivergedError for an estimate that holds NaN or inf.
        """
        began, made = time.monotonic(), self.shared.calls_made
        found: dict[int, _Sums] = {}
        for number, positions in enumerate(self.evaluator.batches()):
            for group, sums in self._batch(number, positions, chosen, max(groups, 1), on_call):
                found[group] = found[group].merge(sums) if group in found else sums
        distance = self.evaluator.extractor.metric
        total = _merged(list(found.values()))
        return ListResult(
            total.metrics(distance),
            total.errors.n,
            _replicates(found, distance) if groups else {},
            self.shared.calls_made - made,
            time.monotonic() - began,
        )

    def _batch(
        self,
        number: int,
        positions: range,
        chosen: SeverityList,
        groups: int,
        on_call: Callable[[], None],
    ) -> Iterator[tuple[int, _Sums]]:
        evaluator = self.evaluator

        def estimate(x_t: Image, t: Severity) -> Image:
            on_call()
            return evaluator.estimate(x_t, t)

        inputs = self._inputs_of(number, positions)
        restore = self.shared.restore(estimate, chosen, number)
        x_0 = evaluator.restored(inputs, chosen.sampler, chosen.severities, restore=restore)
        features, originals = evaluator.features(x_0), self._originals[number]
        # Drawn at random: a data set may list its classes in turn.
        order = stream(evaluator.spec.seed, "search/groups").permutation(evaluator.num_images)
        group_of = order[positions.start : positions.stop] % groups
        for group in sorted(set(group_of.tolist())):
            rows = group_of == group
            among = torch.from_numpy(rows).to(x_0.device)
            yield (
                group,
                _Sums(
                    image_errors(x_0[among], inputs.x0[among]),
                    FeatureStatistics.of(features[rows]),
                    FeatureStatistics.of(originals[rows]),
                ),
            )

    def _inputs_of(self, number: int, positions: range) -> EvaluationInputs:
        kept = self._inputs.get(number)
        if kept is not None:
            return kept
        inputs = self.evaluator.inputs(positions)
        if number not in self._originals:
            self._originals[number] = self.evaluator.features(inputs.x0)
        size = sum(t.nbytes for t in (inputs.x0, inputs.degraded, *inputs.omega.values()))
        if size * len(self.evaluator.batches()) <= MOST_INPUT_BYTES:
            self._inputs[number] = inputs
        return inputs


def _merged(sums: list[_Sums]) -> _Sums:
    total = sums[0]
    for more in sums[1:]:
        total = total.merge(more)
    return total


def _replicates(found: dict[int, _Sums], distance: str) -> dict[str, list[float]]:
    """Each metric over all groups but one, for each group in turn."""
    if len(found) < 2:
        return {}
    rest = [
        _merged([sums for other, sums in sorted(found.items()) if other != group])
        for group in sorted(found)
    ]
    each = [sums.metrics(distance) for sums in rest]
    shared = set.intersection(*(set(metrics) for metrics in each))
    return {name: [metrics[name] for metrics in each] for name in sorted(shared)}


_OPEN: dict[tuple[str, str, str], ListEvaluator] = {}
"""The one evaluator that this process has open, by storage, search and address of the images."""


def open_list_evaluator(search: ResolvedJob, images: str) -> ListEvaluator:
    """The evaluator of a search on the set ``images``, opened once in a process.

    Raises CheckpointError or DataError where the content changed since the search was submitted.
    """
    key = (search.storage, search.id, images)
    if key not in _OPEN:
        close_list_evaluators()
        _OPEN[key] = _opened(search, images)
    return _OPEN[key]


def close_list_evaluators() -> None:
    """Drops the network and the images that this process has open."""
    _OPEN.clear()


def _opened(search: ResolvedJob, images: str) -> ListEvaluator:
    job = search.job_as(SearchJob)
    base = CheckpointBase.of(job)
    device = device_of(job.resources or ResourcesSpec())
    loaded = load_pinned_checkpoint(search, base.checkpoint)
    trained = loaded.spec
    source = open_transformed(images, trained.augment, trained.shape, "images")
    D: Any = loaded.degradation.to(device)
    spec = base_evaluation(base, trained, source.manifest.count)
    evaluator = Evaluator(
        for_inference(loaded.restorer.to(device)),
        D,
        source,
        spec,
        open_features(spec.features, device),
        device=device,
        keep=0,
        images=open_second_set(D, trained.augment),
    )
    if evaluator.extractor.metric != job.metric and job.metric not in ("rmse", "ssim", "psnr"):
        raise ColddiffError(
            f"the features give {evaluator.extractor.metric}, the search compares {job.metric}"
        )
    return ListEvaluator(evaluator)
