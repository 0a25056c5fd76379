"""Mixing: D(x0, t) = sqrt(abar_t) x0 + sqrt(1 - abar_t) z, z noise or an image (PAPER 4.1)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal, TypeVar

import numpy as np
import torch
from pydantic import Field

from colddiff.degradations.base import Degradation
from colddiff.degradations.spec import DegradationSpec
from colddiff.degradations.tables import working_dtype
from colddiff.schedules import FloatTable
from colddiff.spec import Choices, Range
from colddiff.types import Image, Omega, Severity

if TYPE_CHECKING:
    from torch import Tensor

AlphasBar = Literal["cosine", "linear"]


class MixingSpec(DegradationSpec):
    """Severity t keeps the fraction abar_t of the image's variance."""

    num_timesteps: Annotated[
        int,
        Field(ge=1, le=4000, description="number of severities T"),
        Range(20, 1000, log=True, integer=True),
    ] = 200
    schedule: Annotated[
        AlphasBar,
        Field(description="how abar_t falls: cos^2, or betas linear from 1e-4 to 0.02 (x 1000/T)"),
        Choices(("cosine", "linear")),
    ] = "cosine"


MixingSpecT = TypeVar("MixingSpecT", bound=MixingSpec)


class Mixing(Degradation[MixingSpecT]):
    """Two scalars per severity; omega ``z`` [B, C, H, W], whose source a subclass defines."""

    omega_names = ("z",)
    parameter_tables = ("weight_of_x0", "weight_of_z")

    def omega_shape(self, name: str) -> tuple[int, ...]:
        return self.shape.chw

    def estimate_omega(self, x_t: Image, x0_hat: Image, t: Severity) -> dict[str, Tensor]:
        """z_hat = (x_t - sqrt(abar_t) x0_hat) / sqrt(1 - abar_t), or 0 where t = 0.

        With it ``improved_estimated`` is the deterministic DDIM step (PAPER 4.1). In float32 for
        images in half precision: near severity 0 it divides a small difference by a small number.
        """
        t = t.to(x_t.device, non_blocking=True)
        x_t, x0_hat = (x.to(working_dtype(x_t.dtype)) for x in (x_t, x0_hat))
        signal, noise = self._weights(x_t, t)
        return {"z": (x_t - signal * x0_hat) / torch.where(noise > 0, noise, torch.inf)}

    def _make_tables(self) -> dict[str, Tensor]:
        kept = np.concatenate([[1.0], alphas_bar(self.spec.schedule, self.num_timesteps)])
        return {
            "weight_of_x0": torch.from_numpy(np.sqrt(kept)),
            "weight_of_z": torch.from_numpy(np.sqrt(1 - kept)),
        }

    def _weights(self, like: Tensor, t: Severity) -> tuple[Tensor, Tensor]:
        tables = self._tables(like)
        signal, noise = (tables[name][t].view(-1, 1, 1, 1) for name in self.parameter_tables)
        return signal, noise

    def _degrade(self, x0: Image, t: Severity, omega: Omega) -> Image:
        signal, noise = self._weights(x0, t)
        return signal * x0 + noise * omega["z"]


def alphas_bar(schedule: AlphasBar, num_timesteps: int) -> FloatTable:
    """abar of severities 1..T, float64 [T], falling in (0, 1).

    ``cosine``: f_k = cos^2(((k/T + 0.008) / 1.008) pi/2), beta_k = 1 - f_k / f_{k-1} clipped to
    [0, 0.999]. ``linear``: betas linspace(1e-4, 0.02, T) 1000/T, clipped at 0.999.
    """
    if schedule == "cosine":
        steps = np.linspace(0, 1, num_timesteps + 1, dtype=np.float64)
        f = np.cos((steps + 0.008) / 1.008 * np.pi / 2) ** 2
        betas = np.clip(1 - f[1:] / f[:-1], 0, 0.999)
    else:
        betas = np.linspace(1e-4, 0.02, num_timesteps, dtype=np.float64) * 1000 / num_timesteps
        betas = np.minimum(betas, 0.999)
    return np.asarray(np.cumprod(1 - betas))
