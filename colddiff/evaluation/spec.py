"""How restorations are evaluated: images, samplers, severities and features, as data."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from colddiff.features.spec import AnyFeatures, LenetFeaturesSpec
from colddiff.samplers import DEFAULT, SamplerName
from colddiff.spec import LATER, Spec, Unit

EVALUATED = ("direct", "naive", "improved")
"""The paper's columns: one estimate, Algorithm 1, Algorithm 2."""
SAMPLERS = "each restores all images, in a column of its own"
SEVERITIES = "null for T..0, n even steps, or a falling list down to 0"
BATCH_SIZE = "rows of every forward pass"
SEED = "of omega, and of the halves that real images are compared in"


CURVE = "curve_"
"""Columns ``curve_<n>`` are restorations by ``n`` network calls."""
Calls = Annotated[
    tuple[Annotated[int, Field(ge=1)], ...] | None,
    Field(
        description="also restore with these numbers of network calls, at even severities, as "
        "eval/curve_<n>/...; null for none"
    ),
    LATER,
]


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
        float, Field(ge=0, description="std added to each pixel of x_T: 0, or the paper's 0.002")
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
    generated: Annotated[
        GeneratedSpec | None,
        Field(description="samples from the terminal too, as eval/generated/...; null for none"),
        LATER,
    ] = None
