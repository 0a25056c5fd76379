"""Example of a user's degradation: a shortened MRI scan that leaves out rows of k-space."""

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
    """Leaves out rows of the 2-D FFT, low frequencies last, in a random order for each image."""

    kind: Literal["kspace"] = "kspace"
    num_timesteps: Annotated[
        int,
        Field(ge=1, le=4000, description="number of severities T"),
        Range(5, 200, log=True, integer=True),
    ] = 32
    keep: Annotated[
        float, Field(gt=0, lt=1, description="fraction of rows kept at T"), Range(0.1, 0.5)
    ] = 0.25
    jitter: Annotated[
        float,
        Field(ge=0, le=10, description="how far a row can move in the order at random"),
        Unit("highest frequencies"),
        Range(0.0, 1.0),
    ] = 0.5
    centre: Annotated[
        float, Field(ge=0, lt=1, description="fraction of rows, around 0, that is dropped last")
    ] = 0.08

    def build(self, shape: ImageShape) -> KSpace:
        return KSpace(self, shape)


class KSpace(Degradation[KSpaceSpec]):
    """D(x, t) = F^-1 (m_t * F x) along the height, m_t [B, H // 2 + 1] in [0, 1].

    Leaving out whole rows of the 2-D FFT is a filter on the 1-D FFT of the columns. An image is
    real, so rows k and -k are redundant and dropped together: m_t weights the frequencies
    0..H // 2 of a real FFT, and the result is real. The row at the border of the kept ones fades
    out gradually, so that every severity has an effect and D is continuous in t.

    ``omega["order"]`` [B, H // 2 + 1], uniform in [0, 1): random offset of each row's frequency,
    by which the rows are sorted.
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
            # The first row is always kept: it holds the mean of the image.
            "frequencies_kept": torch.from_numpy(1 + left * (rows - 1)),
            # The offset is at most `jitter`: rows lower by more than that are dropped last.
            "frequency": torch.from_numpy(
                np.where(frequency <= self.spec.centre, frequency - self.spec.jitter - 1, frequency)
            ),
        }

    def _degrade(self, x0: Image, t: Severity, omega: Omega) -> Image:
        tables = self._tables(x0)
        sort_key = tables["frequency"] + self.spec.jitter * omega["order"]
        rank = sort_key.argsort(dim=1, stable=True).argsort(dim=1)
        mask = (tables["frequencies_kept"][t].unsqueeze(1) - rank).clamp(0, 1)
        spectrum = torch.fft.rfft(x0, dim=-2) * mask[:, None, :, None]
        filtered: Image = torch.fft.irfft(spectrum, n=x0.shape[-2], dim=-2)
        return filtered
