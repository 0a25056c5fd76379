"""A degradation of one's own: rows of k-space that a shortened MRI scan leaves out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

from colddiff.degradations import DEGRADATIONS, Degradation, DegradationSpec
from colddiff.spec import Range, Unit
from colddiff.types import Image, ImageShape, Omega, Severity


@DEGRADATIONS.register
class KSpaceSpec(DegradationSpec):
    """Severity t leaves out rows of the 2-D FFT, low frequencies last, in an order per image."""

    kind: Literal["kspace"] = "kspace"
    num_timesteps: Annotated[
        int,
        Field(ge=1, le=4000, description="number of severities T"),
        Range(5, 200, log=True, integer=True),
    ] = 32
    keep: Annotated[
        float, Field(gt=0, lt=1, description="part of the rows left at T"), Range(0.1, 0.5)
    ] = 0.25
    jitter: Annotated[
        float,
        Field(ge=0, le=10, description="how far chance moves a row's place in the order"),
        Unit("highest frequencies"),
        Range(0.0, 1.0),
    ] = 0.5
    centre: Annotated[
        float, Field(ge=0, lt=1, description="part of the rows, around 0, that goes last of all")
    ] = 0.08

    def build(self, shape: ImageShape) -> KSpace:
        return KSpace(self, shape)


class KSpace(Degradation[KSpaceSpec]):
    """D(x, t) = F^-1 (m_t * F x) along the height, m_t [B, H // 2 + 1] in [0, 1].

    Leaving out whole rows of the 2-D FFT is filtering the columns' 1-D FFT. An image is real, so
    rows k and -k say the same and go together: m_t weighs the frequencies 0..H // 2 of a real FFT,
    and what comes back is real. The row at the border of what is kept fades out over the
    severities, so that no severity is without effect and D is continuous in t.

    ``omega["order"]`` [B, H // 2 + 1], uniform in [0, 1): what chance adds to each row's frequency
    before the rows are put in order.
    """

    omega_names = ("order",)
    parameter_tables = ("frequencies_kept",)

    def omega_shape(self, name: str) -> tuple[int, ...]:
        return (self.shape.height // 2 + 1,)

    def _draw_row(self, rng: np.random.Generator) -> Mapping[str, NDArray[Any]]:
        return {"order": rng.random(self.omega_shape("order"), dtype=np.float32)}

    def _make_tables(self) -> dict[str, Tensor]:
        rows = self.omega_shape("order")[0]
        frequency = np.linspace(0, 1, rows)
        left = np.linspace(1, self.spec.keep, self.num_timesteps + 1)
        return {
            # A first row is always kept: without the mean an image is lost altogether.
            "frequencies_kept": torch.from_numpy(1 + left * (rows - 1)),
            # Chance adds at most `jitter`: what stands that much lower goes after all the rest.
            "frequency": torch.from_numpy(
                np.where(frequency <= self.spec.centre, frequency - self.spec.jitter - 1, frequency)
            ),
        }

    def _degrade(self, x0: Image, t: Severity, omega: Omega) -> Image:
        tables = self._tables(x0)
        last_to_go = tables["frequency"] + self.spec.jitter * omega["order"]
        place = last_to_go.argsort(dim=1, stable=True).argsort(dim=1)
        mask = (tables["frequencies_kept"][t].unsqueeze(1) - place).clamp(0, 1)
        spectrum = torch.fft.rfft(x0, dim=-2) * mask[:, None, :, None]
        left: Image = torch.fft.irfft(spectrum, n=x0.shape[-2], dim=-2)
        return left
