"""Algorithm 1 of Cold Diffusion: restore, then degrade again, to a lower severity."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from colddiff.samplers.base import SAMPLERS, Sampler, full
from colddiff.types import Image, Omega

if TYPE_CHECKING:
    from colddiff.degradations import Degradation


@SAMPLERS.register
class Naive(Sampler):
    """Algorithm 1: x_s = D(x0_hat, s)."""

    name = "naive"
    label = "Algorithm 1 (naive)"
    order = 1

    def step(
        self, x_t: Image, x0_hat: Image, t: int, s: int, D: Degradation[Any], omega: Omega
    ) -> Image:
        return D.degrade(x0_hat, full(x_t, s), omega)
