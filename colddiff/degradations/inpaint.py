"""Inpainting: a hole that grows from one pixel, D(x, t) = x prod_i (1 - g_i) (PAPER 3.2)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field

from colddiff.degradations.base import Degradation
from colddiff.degradations.masks import cumulative_masks, masks_at, middle
from colddiff.degradations.spec import DEGRADATIONS, DegradationSpec
from colddiff.errors import SpecError
from colddiff.schedules import Linear, Schedule, positive_values
from colddiff.spec import Unit
from colddiff.types import Image, ImageShape, Omega, Severity

if TYPE_CHECKING:
    from torch import Tensor


@DEGRADATIONS.register
class InpaintSpec(DegradationSpec):
    """Severity t multiplies by t masks around one centre, mask i of std ``sigma`` at entry i - 1.

    Removed pixels become 0, mid-grey.
    """

    kind: Literal["inpaint"] = "inpaint"
    sigma: Annotated[Schedule, Field(description="std of each step's mask"), Unit("px")] = Linear(
        start=1.1, step=0.1
    )
    centre: Annotated[
        Literal["centred", "random"],
        Field(description="the middle of the image, or a pixel drawn for each trajectory"),
    ] = "random"
    quantise: Annotated[
        bool, Field(description="observations are rounded to 8 bit; sampler steps are not")
    ] = True

    def build(self, shape: ImageShape) -> Inpaint:
        return Inpaint(self, shape)

    @property
    def observed_in_8_bit(self) -> bool:
        return self.quantise


class Inpaint(Degradation[InpaintSpec]):
    """One gather of cumulative masks; omega ``centre`` [B, 2] (row, column, -1..side - 1)."""

    def __init__(self, spec: InpaintSpec, shape: ImageShape) -> None:
        super().__init__(spec, shape)
        self.omega_names = ("centre",) if spec.centre == "random" else ()
        positive_values(spec.sigma, spec.num_timesteps, "degradation.sigma")

    def omega_shape(self, name: str) -> tuple[int, ...]:
        return (2,)

    def _draw_row(self, rng: np.random.Generator) -> Mapping[str, NDArray[Any]]:
        sides = np.array([self.shape.height, self.shape.width])
        # Offsets 0..n, both ends included: the centre may lie one pixel outside.
        return {"centre": (sides - 1 - rng.integers(0, sides + 1)).astype(np.float32)}

    def _check_omega(self, name: str, value: Tensor) -> None:
        super()._check_omega(name, value)
        last = torch.tensor([self.shape.height - 1, self.shape.width - 1])
        inside = (value >= -1) & (value <= last) & (value == value.round())
        if not bool(inside.all()):
            row, column = value[~inside.all(dim=1)][0].tolist()
            raise SpecError(
                f"inpaint: omega['centre'] must be whole pixels, -1..{int(last[0])} by "
                f"-1..{int(last[1])}, got ({row:g}, {column:g})"
            )

    def _make_tables(self) -> dict[str, Tensor]:
        sigmas = positive_values(self.spec.sigma, self.num_timesteps, "degradation.sigma")
        height, width = self.shape.height, self.shape.width
        masks = torch.from_numpy(cumulative_masks(sigmas, height + 1, width + 1))
        return {"masks": masks, "middle": torch.tensor([[middle(height), middle(width)]])}

    def _degrade(self, x0: Image, t: Severity, omega: Omega) -> Image:
        tables = self._tables(x0)
        centre = omega["centre"].long() if "centre" in omega else tables["middle"]
        return x0 * masks_at(tables["masks"], t, centre, self.shape.height, self.shape.width)
