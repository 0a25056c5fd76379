"""Evaluation of a restorer on test images: degraded ones and each sampler's results (PAPER 6)."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from colddiff.data.readers.transformed import TRANSFORM_SETTING
from colddiff.degradations import Degradation
from colddiff.degradations.base import DrawImages
from colddiff.errors import DataError, DivergedError
from colddiff.evaluation.batch import EvaluationBatch
from colddiff.evaluation.best import misfit, notes_on_restored
from colddiff.evaluation.bounds import refuse_beyond
from colddiff.evaluation.metrics import ImageErrors, add_distance
from colddiff.evaluation.partition import batch_sums, threads_for
from colddiff.evaluation.result import Evaluation
from colddiff.evaluation.spec import EvaluationSpec
from colddiff.evaluation.sums import EvaluationSums
from colddiff.evaluation.trajectory import (
    MAX_FRAMES,
    MAX_SHOWN,
    Recorder,
    evenly,
)
from colddiff.ports import FeatureExtractor, ShardSource
from colddiff.restorers import evaluating
from colddiff.restorers.precision import at_precision
from colddiff.rng import streams
from colddiff.samplers import DEFAULT, SAMPLERS, check_samplers
from colddiff.sampling import Restore, Severities, falling, sample_steps
from colddiff.spec import digest
from colddiff.transforms import eight_bit, normalise
from colddiff.types import Image, Omega, Severity

KEPT_IMAGES = 8
"""Images of the first batch that are kept as pictures."""
_READING = threading.Lock()
"""Held while images are read: their readers are for one thread at a time."""
IMAGE_PROTOCOL = (
    "ssim, rmse, psnr against the test images on the scale [0, 1] at full depth, not clamped; rmse "
    "and psnr of the mean squared error over all images, ssim the mean over images"
)


@dataclass(frozen=True, slots=True)
class EvaluationInputs:
    """A batch as samplers get it: originals, what is random in D, and degraded images, x_T."""

    x0: Image
    omega: Omega
    degraded: Image


@dataclass(frozen=True, slots=True)
class Evaluator:
    """Evaluates R for D on test images, batch by batch; implements ``BatchedEvaluation``.

    Args:
        R: (x_t, t) -> x0_hat, on ``device``.
        D: the degradation, for images of the shape ``source`` holds.
        source: test images; every omega is a function of (seed, index in the manifest).
        spec: how many images (evenly spread over the manifest), which samplers and severities.
        extractor: the network behind the Frechet distances.
        keep: how many images of the first batch are kept as pictures.
        images: draws from the second set where D mixes one in.
        cores: for batches at once on a CPU; None for as many as torch has threads.
    """

    R: Restore
    D: Degradation[Any]
    source: ShardSource
    spec: EvaluationSpec
    extractor: FeatureExtractor
    device: torch.device | str = "cpu"
    keep: int = KEPT_IMAGES
    images: DrawImages | None = None
    cores: int | None = None

    def __post_init__(self) -> None:
        image = self.source.manifest.image
        stored = (image.channels, image.height, image.width)
        if stored != self.D.shape.chw:
            raise DataError(
                f"test data: images are {'x'.join(map(str, stored))}, the checkpoint takes "
                f"{self.D.shape}; pack them with its --image-size and --channels"
            )
        refuse_beyond(self.spec, self.D, self.source.manifest.count, section="evaluation.")
        check_samplers(self.spec.samplers, self.D, "evaluation.samplers")

    @property
    def start(self) -> int:
        """The severity of the degraded images."""
        return falling(self.spec.severities, self.D.num_timesteps)[0]

    @property
    def num_images(self) -> int:
        """Number of test images that are evaluated."""
        chosen = self.spec.num_images
        return self.source.manifest.count if chosen is None else chosen

    @property
    def at_once(self) -> int:
        """Batches of small images on a CPU are restored several at once."""
        values = self.spec.batch_size * math.prod(self.D.shape.chw)
        return threads_for(values, self.device, self.cores)

    def batches(self) -> list[range]:
        """Positions 0..num_images - 1 in batches of ``spec.batch_size``."""
        n, size = self.num_images, self.spec.batch_size
        return [range(start, min(start + size, n)) for start in range(0, n, size)]

    def inputs(self, positions: range) -> EvaluationInputs:
        """The images at ``positions``, degraded to the first of the severities."""
        indices = [
            position * self.source.manifest.count // self.num_images for position in positions
        ]
        with _READING:
            x0 = normalise(torch.from_numpy(images_at(self.source, indices)).to(self.device))
            rng = streams(self.spec.seed, "evaluation/omega", indices)
            omega = self.D.draw(len(x0), rng=rng, images=self.images)
        x_T = self.D.observe(x0, torch.full((len(x0),), self.start), omega)
        return EvaluationInputs(x0, omega, x_T)

    def batch(self, positions: range) -> EvaluationBatch:
        """The images at ``positions``, to be restored with every sampler."""
        return EvaluationBatch(self, positions)

    @property
    def frames(self) -> list[int]:
        """Severities of the animation of a trajectory."""
        return evenly(falling(self.spec.severities, self.D.num_timesteps), MAX_FRAMES)

    @property
    def shown_severities(self) -> list[int]:
        """Severities between which a page moves; they are among ``frames``."""
        return evenly(self.frames, MAX_SHOWN)

    @property
    def judged_by(self) -> str:
        """The column by whose errors images are chosen to be shown."""
        names = (self.shown, *self.spec.samplers)
        return next((SAMPLERS[name].column for name in names if name), "degraded")

    @property
    def shown(self) -> str | None:
        """The sampler whose trajectory is kept: the default, else the first that takes steps."""
        walks = [name for name in self.spec.samplers if not SAMPLERS[name].single_step]
        return DEFAULT if DEFAULT in walks else next(iter(walks), None)

    def restored(
        self,
        inputs: EvaluationInputs,
        sampler: str,
        severities: Severities,
        restore: Restore | None = None,
        recorder: Recorder | None = None,
    ) -> Image:
        """x_0 of a sampler that follows ``severities``; ``restore`` stands in for ``estimate``."""
        x = inputs.degraded
        # Needed here too: `sample_steps` sees R as a plain function, not as a module.
        with evaluating(self.R):
            for step in sample_steps(
                restore or self.estimate,
                self.D,
                inputs.degraded,
                inputs.omega,
                sampler=sampler,
                severities=severities,
            ):
                if recorder is not None:
                    recorder.record(step.t, x, step.x0_hat)
                x = step.x_s
        if recorder is not None:
            recorder.record(0, x, x)
        return x

    def estimate(self, x_t: Image, t: Severity) -> Image:
        """R(x_t, t) as float32; DivergedError where it holds NaN or inf."""
        with at_precision(self.spec.precision, x_t.device):
            x0_hat = self.R(x_t, t)
        # Checked here: D would otherwise reject the estimate as an invalid argument.
        if not bool(torch.isfinite(x0_hat).all()):
            raise DivergedError(
                f"evaluation: R(x_t, t) holds NaN or inf at severity {int(t[0])}; evaluate an "
                "earlier checkpoint"
            )
        return x0_hat.float()

    def features(self, images: Image) -> NDArray[np.float64]:
        """Features [B, F] of images in [-1, 1], clamped and rounded to 8 bit first."""
        return self.extractor.features(torch.from_numpy(eight_bit(images)))

    def summary(self, sums: EvaluationSums) -> Evaluation:
        """The metrics from the sums over all test images."""
        metrics: dict[str, float] = {}
        omitted: dict[str, str] = {}
        fd = self.extractor.metric
        for name, column in sums.columns.items():
            path, errors = f"eval/{name}", column.errors
            metrics[f"{path}/rmse"] = errors.rmse
            if errors.ssim is None:
                omitted[f"{path}/ssim"] = f"images of {self.D.shape} are under its 11 px window"
            else:
                metrics[f"{path}/ssim"] = errors.ssim
            if math.isinf(errors.psnr):
                omitted[f"{path}/psnr"] = "infinite: the images equal the test images"
            else:
                metrics[f"{path}/psnr"] = errors.psnr
            add_distance(metrics, omitted, f"{path}/{fd}", (column.features, sums.reference))
        add_distance(metrics, omitted, f"eval/floor/{fd}", sums.halves)
        provenance = self._provenance(sums, omitted)
        walked = sums.trajectories.get(SAMPLERS[self.shown].column) if self.shown else None
        return Evaluation(metrics, provenance, walked, sums)

    def _provenance(self, sums: EvaluationSums, omitted: Mapping[str, str]) -> dict[str, Any]:
        n, features = sums.reference.n, sums.reference.mean.size
        manifest, spec = self.source.manifest, self.spec
        view = (
            {TRANSFORM_SETTING: manifest.settings[TRANSFORM_SETTING]}
            if TRANSFORM_SETTING in manifest.settings
            else {}
        )
        narrow = "" if spec.precision == "fp32" else f"; R in {spec.precision}"
        return {
            "n": n,
            "test_manifest": manifest.digest,
            "reference_sha256": digest({"manifest": manifest.digest, "num_images": n, **view}),
            "transform": view.get(TRANSFORM_SETTING, "as stored"),
            "metric": self.extractor.metric,
            "feature_weights_sha256": self.extractor.weights_sha256,
            "protocol": f"clamped, rounded to 8 bit, {self.extractor.protocol}{narrow}",
            "image_protocol": f"{IMAGE_PROTOCOL}{narrow}",
            "degradation": self.D.spec.to_dict(),
            "severities": falling(spec.severities, self.D.num_timesteps),
            "seed": spec.seed,
            "omitted": dict(omitted),
            "misfit": misfit(self.extractor.metric, self.D.shape.chw, n),
            "notes": notes_on_restored(self.extractor.metric, self.D.shape.chw, n, features),
        }


def evaluate(
    R: Restore,
    D: Degradation[Any],
    source: ShardSource,
    spec: EvaluationSpec,
    extractor: FeatureExtractor,
    *,
    device: torch.device | str = "cpu",
    keep: int = KEPT_IMAGES,
    images: DrawImages | None = None,
    on_batch: Callable[[int, int], None] | None = None,
) -> Evaluation:
    """``eval/{degraded,direct,naive,sampled,...}/{fd,ssim,rmse,psnr}`` of R on ``source``.

    A column for each sampler of ``spec``, named by ``Sampler.column``.

    ``on_batch(done, total)`` is called with image counts after each batch; the other arguments are
    those of ``Evaluator``.

    Raises:
        DataError: the test images do not have the restorer's shape.
        SpecError: too many images, invalid severities, or a sampler that D does not support.
        DivergedError: an estimate holds NaN or inf.
    """
    return evaluate_all(Evaluator(R, D, source, spec, extractor, device, keep, images), on_batch)


def evaluate_all(
    evaluator: Evaluator, on_batch: Callable[[int, int], None] | None = None
) -> Evaluation:
    """The evaluation over all batches of ``evaluator``, in this process."""
    total: EvaluationSums | None = None
    # Once for all: of batches at once, one would give R its mode back under the others.
    with evaluating(evaluator.R):
        for positions, sums in batch_sums(evaluator, evaluator.batches()):
            total = sums if total is None else total.merge(sums)
            if on_batch is not None:
                on_batch(positions.stop, evaluator.num_images)
    assert total is not None
    return evaluator.summary(total)


def image_errors(images: Image, x0: Image) -> ImageErrors:
    """The errors of images [B, C, H, W] in [-1, 1] against their originals, on the scale [0, 1]."""
    return ImageErrors.of((images.double() + 1) / 2, (x0.double() + 1) / 2)


def images_at(source: ShardSource, indices: Sequence[int]) -> NDArray[Any]:
    """The images at ascending ``indices``, [N, C, H, W]; one read if they are consecutive."""
    if indices[-1] - indices[0] == len(indices) - 1:
        return np.array(source.images(indices[0], indices[-1] + 1))
    return np.concatenate([source.images(index, index + 1) for index in indices])
