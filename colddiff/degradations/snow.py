"""Snow: a random layer of flakes, thresholded, motion-blurred and added twice (PAPER 3.4)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field

from colddiff.degradations.base import Degradation
from colddiff.degradations.blur import gaussian
from colddiff.degradations.spec import DEGRADATIONS, DegradationSpec
from colddiff.errors import SpecError
from colddiff.schedules import FloatTable
from colddiff.spec import Choices, Range
from colddiff.types import Image, ImageShape, Omega, Severity

if TYPE_CHECKING:
    from torch import Tensor

LUMA = (0.299, 0.587, 0.114)  # BT.601


@dataclass(frozen=True, slots=True)
class Weather:
    """One row of PAPER 3.4's table; pairs are interpolated linearly from severity 1 to T."""

    mean: float
    zoom: float
    threshold: tuple[float, float]
    taps: int
    streak: tuple[float, float]
    brightness: tuple[float, float]


WEATHERS = {
    1: Weather(0.1, 3, (0.7, 0.3), 5, (0.5, 5), (0.95, 0.7)),
    2: Weather(0.55, 2.5, (1.15, 0.7), 11, (0.05, 12), (0.95, 0.55)),
    3: Weather(0.55, 2.5, (1.15, 0.7), 11, (0.05, 16), (0.95, 0.4)),
    4: Weather(0.55, 2.5, (1.15, 0.55), 11, (0.05, 20), (0.95, 0.3)),
}


@DEGRADATIONS.register
class SnowSpec(DegradationSpec):
    """Severity t shows more flakes with longer streaks; not chained, always applied to x0."""

    kind: Literal["snow"] = "snow"
    num_timesteps: Annotated[
        int,
        Field(ge=1, le=4000, description="number of severities T"),
        Range(20, 400, log=True, integer=True),
    ] = 200
    level: Annotated[
        Literal[1, 2, 3, 4],
        Field(description="amount of snow at T (ImageNet-C's scale)"),
        Choices((1, 2, 3, 4)),
    ] = 3
    fix_brightness: Annotated[
        bool, Field(description="false also brightens the image, as ImageNet-C does")
    ] = True

    def build(self, shape: ImageShape) -> Snow:
        return Snow(self, shape)


class Snow(Degradation[SnowSpec]):
    """D(x, t) = 2 clip((x + 1)/2 + L_t + rot180(L_t), 0, 1) - 1.

    omega: ``base`` [B, H, W], the zoomed layer S; ``vertical`` bool [B], direction of the streaks.
    L_t is S with values below a threshold set to 0, filtered along rows or columns: one layer per
    image of the call, whatever t is.
    """

    omega_names = ("base", "vertical")
    parameter_units: ClassVar[Mapping[str, str]] = {"streak": "px"}

    def __init__(self, spec: SnowSpec, shape: ImageShape) -> None:
        super().__init__(spec, shape)
        self.weather = WEATHERS[spec.level]
        bleaching = () if spec.fix_brightness else ("brightness",)
        self.parameter_tables = ("threshold", "streak", *bleaching)
        if not spec.fix_brightness and shape.channels not in (1, 3):
            raise SpecError(
                [
                    (
                        "degradation.fix_brightness",
                        f"false needs the luma of 1 or 3 channels, got {shape.channels}; use true",
                    )
                ]
            )

    def omega_shape(self, name: str) -> tuple[int, ...]:
        return (self.shape.height, self.shape.width) if name == "base" else ()

    def _draw_row(self, rng: np.random.Generator) -> Mapping[str, NDArray[Any] | np.generic]:
        flakes = self.weather.mean + 0.3 * rng.standard_normal(
            (self.shape.height, self.shape.width)
        )
        base = zoomed(flakes, self.weather.zoom).astype(np.float32)
        return {"base": base, "vertical": np.bool_(rng.random() > 0.5)}

    def _make_tables(self) -> dict[str, Tensor]:
        def ramp(ends: tuple[float, float]) -> FloatTable:
            # Severity 0 is never computed; it has an entry so that t is the index.
            return np.concatenate([ends[:1], np.linspace(*ends, self.num_timesteps)])

        taps, streaks = self.weather.taps, ramp(self.weather.streak)
        return {
            "threshold": torch.from_numpy(ramp(self.weather.threshold)),
            "kernel": torch.from_numpy(np.stack([gaussian(taps, sigma) for sigma in streaks])),
            "streak": torch.from_numpy(streaks),
            "brightness": torch.from_numpy(ramp(self.weather.brightness)),
            "luma": torch.tensor(LUMA if self.shape.channels == 3 else (1.0,), dtype=torch.float64),
        }

    def _degrade(self, x0: Image, t: Severity, omega: Omega) -> Image:
        tables = self._tables(x0)
        base, threshold = omega["base"], tables["threshold"][t].view(-1, 1, 1)
        flakes = torch.where(base < threshold, 0, base).clamp(0, 1)
        layer = streaked(flakes, tables["kernel"][t], omega["vertical"].bool())
        image = (x0 + 1) / 2
        if not self.spec.fix_brightness:
            kept = tables["brightness"][t].view(-1, 1, 1, 1)
            image = bleached(image, tables["luma"], kept)
        return 2 * (image + (layer + layer.flip(-1, -2)).unsqueeze(1)).clamp(0, 1) - 1


def streaked(flakes: Tensor, kernel: Tensor, vertical: Tensor) -> Tensor:
    """flakes [B, H, W], each filtered with its own kernel [B, K] along its rows or its columns."""
    _, height, width = flakes.shape
    reach = kernel.shape[1] // 2
    padded = torch.nn.functional.pad(flakes, (reach, reach, reach, reach))
    vertical = vertical.view(-1, 1, 1)
    layer = torch.zeros_like(flakes)
    # A sum of shifts, not a convolution: those may run in TF32 on a GPU.
    for j in range(kernel.shape[1]):
        along = padded[:, reach : reach + height, j : j + width]
        across = padded[:, j : j + height, reach : reach + width]
        layer = layer + kernel[:, j].view(-1, 1, 1) * torch.where(vertical, across, along)
    return layer


def bleached(image: Image, weights: Tensor, kept: Tensor) -> Image:
    """b x + (1 - b) max(x, 1.5 luma + 0.5) of images in [0, 1] (PAPER 3.4)."""
    luma = (image * weights.view(1, -1, 1, 1)).sum(dim=1, keepdim=True)
    return kept * image + (1 - kept) * torch.maximum(image, 1.5 * luma + 0.5)


def zoomed(layer: FloatTable, zoom: float) -> FloatTable:
    """The centre of ``layer`` [H, W], enlarged linearly to [H, W]: ImageNet-C's clipped zoom.

    The centre ceil(n / zoom) samples are stretched to round(ceil(n / zoom) zoom), end on end, and
    the middle n of those are kept.
    """
    for axis, n in enumerate(layer.shape):
        few = math.ceil(n / zoom)
        many = round(few * zoom)
        position = np.arange(many) * ((few - 1) / max(many - 1, 1))
        position = position[(many - n) // 2 :][:n]
        below = np.minimum(position.astype(np.int64), max(few - 2, 0))
        part = np.expand_dims(position - below, axis=1 - axis)
        first = (n - few) // 2
        low, high = (
            np.take(layer, first + np.minimum(below + k, few - 1), axis=axis) for k in (0, 1)
        )
        layer = (1 - part) * low + part * high
    return layer
