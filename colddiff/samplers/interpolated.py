"""InDI's small step, a straight line towards the estimate (arXiv 2303.11435)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from colddiff.samplers.base import SAMPLERS, Sampler
from colddiff.types import Image, Omega

if TYPE_CHECKING:
    from colddiff.degradations import Degradation


@SAMPLERS.register
class Interpolated(Sampler):
    """x_s = x0_hat + (s / t)(x_t - x0_hat), which does not use D.

    Inversion by Direct Iteration (Delbracio and Milanfar 2023); exact where D moves x0 along a
    straight line, D(x, s) = x + s e.
    """

    name = "interpolated"
    description = "InDI's step, a straight line towards the estimate"
    order = 4
    needs_omega = False

    def step(
        self, x_t: Image, x0_hat: Image, t: int, s: int, D: Degradation[Any], omega: Omega
    ) -> Image:
        return x0_hat + (s / t) * (x_t - x0_hat)
