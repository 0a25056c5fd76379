"""How restorations are evaluated: images, samplers, severities and features, as data."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from colddiff.features.spec import AnyFeatures, LenetFeaturesSpec
from colddiff.samplers import SamplerName
from colddiff.spec import Spec

EVALUATED = ("direct", "naive", "improved")
"""The paper's columns: one estimate, Algorithm 1, Algorithm 2."""


class EvaluationSpec(Spec):
    """How a training job evaluates its checkpoints: degraded, direct, naive, sampled (PAPER 6)."""

    features: Annotated[
        AnyFeatures,
        Field(description="inception (fid), lenet, resnet20, or your own torchscript network"),
    ] = LenetFeaturesSpec()
    num_images: Annotated[int | None, Field(ge=2, description="null for the whole test set")] = None
    samplers: tuple[SamplerName, ...] = EVALUATED
    severities: int | tuple[int, ...] | None = None
    batch_size: Annotated[int, Field(ge=1, le=65536)] = 64
    seed: Annotated[int, Field(ge=0)] = 0
