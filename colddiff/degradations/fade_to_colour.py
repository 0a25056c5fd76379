"""Fading to one colour, D(x, t) = (1 - w_t) x + w_t colour with a radial weight w_t (PAPER 4.3)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field, field_validator

from colddiff.degradations.base import Degradation
from colddiff.degradations.masks import cumulative_masks, masks_at, middle
from colddiff.degradations.spec import DEGRADATIONS, DegradationSpec
from colddiff.errors import SpecError
from colddiff.schedules import Linear, Schedule, positive_values
from colddiff.spec import Range, Unit
from colddiff.types import Image, ImageShape, Omega, Severity

if TYPE_CHECKING:
    from torch import Tensor

Level = Annotated[float, Field(ge=-1, le=1)]


@DEGRADATIONS.register
class FadeToColourSpec(DegradationSpec):
    """Severity t fades in a solid colour, from the border, or (not ``reverse``) the centre."""

    kind: Literal["fade_to_colour"] = "fade_to_colour"
    num_timesteps: Annotated[
        int,
        Field(ge=1, le=4000, description="number of severities T"),
        Range(50, 1000, log=True, integer=True),
    ] = 750
    sigma: Annotated[Schedule, Field(description="std of each step's mask"), Unit("px")] = Linear(
        start=0.05, step=0.05
    )
    reverse: Annotated[
        bool,
        Field(description="from the border, covering all at T; false: from the centre, never all"),
    ] = True
    colour_range: Annotated[
        tuple[Level, Level], Field(description="each channel of the colour is uniform in it")
    ] = (-0.5, 0.5)

    @field_validator("colour_range")
    @classmethod
    def _ordered(cls, value: tuple[float, float]) -> tuple[float, float]:
        if value[0] > value[1]:
            raise SpecError(f"must be [low, high], got {list(value)}")
        return value

    def build(self, shape: ImageShape) -> FadeToColour:
        return FadeToColour(self, shape)


class FadeToColour(Degradation[FadeToColourSpec]):
    """One gather of weights; omega ``colour`` [B, C].

    With M_s the product of the first s centred masks, w_t = M_{T-t} (``reverse``) or 1 - M_t.
    """

    omega_names = ("colour",)

    def __init__(self, spec: FadeToColourSpec, shape: ImageShape) -> None:
        super().__init__(spec, shape)
        positive_values(spec.sigma, spec.num_timesteps, "degradation.sigma")

    def omega_shape(self, name: str) -> tuple[int, ...]:
        return (self.shape.channels,)

    def terminal(self) -> Mapping[str, Any] | None:
        # Growing from the centre, the colour never covers the border of x0.
        return {"kind": "solid_colour"} if self.spec.reverse else None

    def _draw_row(self, rng: np.random.Generator) -> Mapping[str, NDArray[Any]]:
        low, high = self.spec.colour_range
        return {"colour": rng.uniform(low, high, self.shape.channels).astype(np.float32)}

    def _make_tables(self) -> dict[str, Tensor]:
        sigmas = positive_values(self.spec.sigma, self.num_timesteps, "degradation.sigma")
        height, width = self.shape.height, self.shape.width
        masks = cumulative_masks(sigmas, height // 2 + 1, width // 2 + 1)
        weights = masks[::-1].copy() if self.spec.reverse else 1 - masks
        return {
            "weights": torch.from_numpy(weights),
            "middle": torch.tensor([[middle(height), middle(width)]]),
        }

    def _degrade(self, x0: Image, t: Severity, omega: Omega) -> Image:
        tables = self._tables(x0)
        height, width = self.shape.height, self.shape.width
        weight = masks_at(tables["weights"], t, tables["middle"], height, width)
        return torch.lerp(x0, omega["colour"][:, :, None, None].expand_as(x0), weight)
