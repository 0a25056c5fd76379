"""One batch of an evaluation: in parts that threads may do at once, and put together."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from threading import Lock
from typing import TYPE_CHECKING

import torch

from colddiff.evaluation.by_severity import BySeverity, measure_by_severity
from colddiff.evaluation.image_scores import Candidate, ImageScores, worth_showing
from colddiff.evaluation.metrics import FeatureStatistics, ImageErrors, ssim_of
from colddiff.evaluation.sums import Column, EvaluationSums
from colddiff.evaluation.trajectory import Recorder, Trajectory
from colddiff.restorers import evaluating
from colddiff.rng import stream
from colddiff.samplers import CURVE, DEFAULT, SAMPLERS
from colddiff.transforms import eight_bit
from colddiff.types import Image, Severity

if TYPE_CHECKING:
    from colddiff.evaluation.evaluator import EvaluationInputs, Evaluator

MEASURED_BY_SEVERITY = 64
"""Images of the first batch: the curve is a mean over them, which more would hardly move, and R is
called at as many severities as a walk has (a fifth of an evaluation of two batches by itself)."""

Halves = tuple[FeatureStatistics | None, FeatureStatistics | None]


@dataclass(frozen=True, slots=True)
class _Found:
    """What one part found: columns by name, and the images of those that are drawn."""

    columns: Mapping[str, Column] = field(default_factory=dict)
    images: Mapping[str, Image] = field(default_factory=dict)
    trajectories: Mapping[str, Trajectory] = field(default_factory=dict)
    by_severity: BySeverity | None = None


class EvaluationBatch:
    """The images at ``positions``, restored by every sampler of ``evaluator``.

    ``parts`` are functions without arguments that do not depend on each other, the longest ones
    first; ``sums`` puts together what they returned, in their order.
    """

    def __init__(self, evaluator: Evaluator, positions: range) -> None:
        self._evaluator, self._positions = evaluator, positions
        # Only the first batch holds image 0, whichever worker sums it.
        self._keep = evaluator.keep if 0 in positions else 0
        self._opening = Lock()
        self._inputs: EvaluationInputs | None = None
        self._first: Image | None = None

    @property
    def parts(self) -> list[Callable[[], _Found]]:
        """One for each sampler and point of the curve, and what all images take once."""
        spec = self._evaluator.spec
        walks = [name for name in spec.samplers if not SAMPLERS[name].single_step]
        jumps = [name for name in spec.samplers if SAMPLERS[name].single_step]
        return [
            *(partial(self._restored, name) for name in walks),
            *(partial(self._by_calls, calls) for calls in spec.curve or ()),
            *([self._by_severity] if self._keep else []),
            *(partial(self._restored, name) for name in jumps),
            self._degraded,
        ]

    def sums(self, found: Sequence[_Found]) -> EvaluationSums:
        """The sums over the images, from the results of ``parts``."""
        evaluator, keep = self._evaluator, self._keep
        names = ["degraded", *(SAMPLERS[name].column for name in evaluator.spec.samplers)]
        curve = [f"{CURVE}{calls}" for calls in evaluator.spec.curve or ()]
        columns = {name: column for one in found for name, column in one.columns.items()}
        columns = {name: columns[name] for name in [*names, *curve]}
        made = {name: image for one in found for name, image in one.images.items()}
        images = {"original": self._opened.x0} | {name: made[name] for name in names}
        walked = {name: path for one in found for name, path in one.trajectories.items()}
        return EvaluationSums(
            columns,
            self._halves(),
            {name: eight_bit(batch[:keep]) for name, batch in images.items()} if keep else {},
            {name: walked[name] for name in names if name in walked},
            next((one.by_severity for one in found if one.by_severity is not None), None),
            self._candidates(columns, images),
            evaluator.judged_by,
        )

    @property
    def _opened(self) -> EvaluationInputs:
        with self._opening:
            if self._inputs is None:
                self._inputs = self._evaluator.inputs(self._positions)
            return self._inputs

    def _estimate(self, x_t: Image, t: Severity) -> Image:
        """R(x_t, t); every sampler begins with that of the degraded images, which is kept."""
        if x_t is not self._opened.degraded:
            return self._evaluator.estimate(x_t, t)
        # Without a lock: a thread that waited for another would do nothing meanwhile.
        if self._first is None:
            self._first = self._evaluator.estimate(x_t, t)
        return self._first

    def _degraded(self) -> _Found:
        images = self._opened.degraded
        return _Found({"degraded": self._column(images)}, {"degraded": images})

    def _restored(self, name: str) -> _Found:
        evaluator, sampler = self._evaluator, SAMPLERS[name]
        # For the strip and its animation; the others are shown at fewer severities.
        shown = evaluator.frames if name == evaluator.shown else evaluator.shown_severities
        recorder = Recorder(shown, self._keep, sampler.label)
        images = evaluator.restored(
            self._opened, name, evaluator.spec.severities, self._estimate, recorder
        )
        path = recorder.trajectory()
        return _Found(
            {sampler.column: self._column(images)},
            {sampler.column: images},
            {} if path is None else {sampler.column: path},
        )

    def _by_calls(self, calls: int) -> _Found:
        """Restored by so many calls of R at even severities."""
        start = self._evaluator.start
        severities = tuple(round(start * (calls - i) / calls) for i in range(calls + 1))
        sampler = self._evaluator.shown or DEFAULT
        images = self._evaluator.restored(self._opened, sampler, severities, self._estimate)
        return _Found({f"{CURVE}{calls}": self._column(images)})

    def _by_severity(self) -> _Found:
        evaluator, inputs = self._evaluator, self._opened
        few = slice(max(MEASURED_BY_SEVERITY, self._keep))
        with evaluating(evaluator.R), torch.inference_mode():
            found = measure_by_severity(
                evaluator.estimate,
                evaluator.D,
                inputs.x0[few],
                {name: values[few] for name, values in inputs.omega.items()},
                evaluator.shown_severities,
                self._keep,
            )
        return _Found(by_severity=found)

    def _candidates(
        self, columns: Mapping[str, Column], images: Mapping[str, Image]
    ) -> tuple[Candidate, ...]:
        """Images of this batch that may be the worst or the median one."""
        if not self._evaluator.keep:
            return ()
        errors = columns[self._evaluator.judged_by].scores.mse
        few = worth_showing(
            [Candidate(row, float(error), {}) for row, error in enumerate(errors)], errors
        )
        return tuple(
            Candidate(
                self._positions[one.position],
                one.error,
                {name: eight_bit(batch[one.position]) for name, batch in images.items()},
            )
            for one in few
        )

    def _column(self, images: Image) -> Column:
        pair = ((images.double() + 1) / 2, (self._opened.x0.double() + 1) / 2)
        similarity = ssim_of(*pair)
        return Column(
            ImageErrors.of(*pair, similarity),
            self._features(images),
            ImageScores.of(*pair, similarity),
        )

    def _halves(self) -> Halves:
        evaluator, positions, x0 = self._evaluator, self._positions, self._opened.x0
        # Drawn at random, not every other image: a data set may list its classes in turn.
        order = stream(evaluator.spec.seed, "evaluation/halves").permutation(evaluator.num_images)
        first = torch.from_numpy(
            order[positions.start : positions.stop] < evaluator.num_images // 2
        ).to(x0.device)
        return (
            self._features(x0[first]) if bool(first.any()) else None,
            self._features(x0[~first]) if bool((~first).any()) else None,
        )

    def _features(self, images: Image) -> FeatureStatistics:
        return FeatureStatistics.of(self._evaluator.features(images))
