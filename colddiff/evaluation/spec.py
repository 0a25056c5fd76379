"""How restorations are evaluated: images, samplers, severities and features, as data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Self

from pydantic import Field, model_validator

from colddiff.errors import SpecError
from colddiff.evaluation.best import IMAGE_METRICS
from colddiff.features.spec import AnyFeatures, LenetFeaturesSpec
from colddiff.restorers.precision import Precision
from colddiff.samplers import DEFAULT, SamplerName
from colddiff.samplers import SAMPLERS as SAMPLER_KINDS
from colddiff.spec import LATER, Spec, Unit, nearest

EVALUATED = ("direct", "naive", "improved")
"""The paper's columns: one estimate, Algorithm 1, Algorithm 2."""
SAMPLERS = "each restores all images, in a column of its own"
SEVERITIES = "null for T..0, n even steps, or a falling list down to 0"
BATCH_SIZE = "rows of every forward pass"
SEED = "of omega, and of the halves that real images are compared in"
OF_TRAININGS = ("generated", "best")
"""Fields that only a training has: samples made beside its restorations, and which of its
checkpoints is the best. An evaluation job, of one checkpoint, has all others."""


Calls = Annotated[
    tuple[Annotated[int, Field(ge=1)], ...] | None,
    Field(
        description="also restore with these numbers of network calls, at even severities, as "
        "eval/curve_<n>/...; null for none"
    ),
    LATER,
]


EvaluationPrecision = Annotated[Precision, LATER]


class GeneratedSpec(Spec):
    """Unconditional samples, made at each evaluation and compared with the test images."""

    num_images: Annotated[
        int,
        Field(ge=2, le=1_000_000, description="samples; distances compare at equal numbers only"),
        Unit("images"),
    ] = 1000
    sampler: Annotated[SamplerName, Field(description="how they are made from x_T")] = DEFAULT
    severities: Annotated[
        int | tuple[int, ...] | None,
        Field(description=SEVERITIES),
    ] = None
    symmetry_noise: Annotated[
        float,
        Field(ge=0, description="std added to each pixel of x_T; the paper's code: 0 or 0.002"),
    ] = 0.0
    first_seed: Annotated[int, Field(ge=0, description="seed of the first sample")] = 0


class EvaluationSpec(Spec):
    """How a training job evaluates its checkpoints, on its test images."""

    features: Annotated[
        AnyFeatures,
        Field(description="inception (fid), lenet, resnet20, or your own torchscript network"),
    ] = LenetFeaturesSpec()
    num_images: Annotated[int | None, Field(ge=2, description="null for the whole test set")] = None
    samplers: Annotated[tuple[SamplerName, ...], Field(description=SAMPLERS)] = EVALUATED
    severities: Annotated[int | tuple[int, ...] | None, Field(description=SEVERITIES)] = None
    batch_size: Annotated[int, Field(ge=1, le=65536, description=BATCH_SIZE)] = 64
    seed: Annotated[int, Field(ge=0, description=SEED)] = 0
    curve: Calls = None
    precision: EvaluationPrecision = "fp32"
    generated: Annotated[
        GeneratedSpec | None,
        Field(description="samples from the terminal too, as eval/generated/...; null for none"),
        LATER,
    ] = None
    best: Annotated[
        str | None,
        Field(
            description="metric that tells the best checkpoint, such as eval/sampled/rmse or "
            "eval/direct/ssim; null for the Frechet distance of Algorithm 2, or its rmse where the "
            "digits' features do not fit the images"
        ),
        LATER,
    ] = None

    @model_validator(mode="after")
    def _best_is_evaluated(self) -> Self:
        if self.best is None:
            return self
        names = (self.features.metric, *IMAGE_METRICS)
        paths = [f"eval/{SAMPLER_KINDS[s].column}/{name}" for s in self.samplers for name in names]
        if self.generated is not None:
            paths.append(f"eval/generated/{self.features.metric}")
        if self.best not in paths:
            what = f"{self.best!r} is no metric of this evaluation{nearest(self.best, paths)}"
            raise SpecError([("best", f"{what} (one of {', '.join(paths)})")])
        return self


def carried_over(evaluation: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a training's ``evaluation`` that an evaluation job takes as they are.

    Every job of that kind made from a training gets them here, so that a field is decided once.
    """
    return {name: value for name, value in evaluation.items() if name not in OF_TRAININGS}
