"""What the laws quantify over: every registered degradation, each of its choices, small images."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal, get_args, get_origin

import numpy as np
import torch
from torch import Tensor

from colddiff.degradations import DEGRADATIONS, Degradation, DegradationSpec
from colddiff.rng import stream, streams
from colddiff.types import ImageShape

SHAPES = (ImageShape(3, 24, 16), ImageShape(1, 16, 16))
"""Not square, and grey; sides that eight divides, so that three halvings fit."""


def specs() -> list[DegradationSpec]:
    """Each kind as it comes, and with each other value of each of its choices and switches."""
    return [spec for cls in DEGRADATIONS.values() for spec in _variants(cls)]


def _variants(cls: type[DegradationSpec]) -> Iterator[DegradationSpec]:
    yield cls.model_validate({})
    for name, field in cls.model_fields.items():
        if field.annotation is bool:
            values: tuple[Any, ...] = (True, False)
        elif get_origin(field.annotation) is Literal:
            values = get_args(field.annotation)
        else:
            continue
        yield from (cls.model_validate({name: value}) for value in values if value != field.default)


def name(spec: DegradationSpec) -> str:
    """``blur`` or ``blur-padding=reflect``."""
    usual = type(spec).model_validate({}).to_dict()
    changed = [f"{k}={v}" for k, v in spec.to_dict().items() if v != usual[k]]
    return "-".join([spec.kind, *changed])


def severities(spec: DegradationSpec) -> list[int]:
    """The ends, their neighbours and the middle of 0..T."""
    T = spec.num_timesteps
    return sorted({0, 1, min(2, T), T // 2, T - 1, T})


def images(shape: ImageShape, batch: int, seed: int = 0) -> Tensor:
    """Smooth images with an edge and some grain, float32 in [-1, 1]."""
    drawn = []
    rows, columns = np.mgrid[: shape.height, : shape.width]
    for rng in streams(seed, "tests/images", range(batch)):
        waves = rng.uniform(0.1, 0.7, (shape.channels, 2, 1, 1))
        smooth = 0.5 * np.sin(waves[:, 0] * rows + waves[:, 1] * columns + rng.uniform(0, 6))
        edge = 0.4 * (rows > rng.integers(shape.height))
        drawn.append(np.clip(smooth + edge + 0.05 * rng.standard_normal(smooth.shape), -1, 1))
    return torch.from_numpy(np.stack(drawn)).float()


def omega(D: Degradation[Any], batch: int, seed: int = 0) -> dict[str, Tensor]:
    """omega of a batch; where D mixes in images of another set, our images stand for that set."""
    if D.omega_images:
        return {key: images(D.shape, batch, seed + 1000) for key in D.omega_images}
    return D.draw(batch, rng=[stream(seed, "tests/omega", i) for i in range(batch)])


def full(batch: int, t: int) -> Tensor:
    """The severity ``t`` for each image of a batch."""
    return torch.full((batch,), t, dtype=torch.int64)
