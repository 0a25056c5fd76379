"""Direct restoration: one estimate of the network, without sampling."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from colddiff.samplers.base import SAMPLERS, Sampler
from colddiff.types import Image, Omega

if TYPE_CHECKING:
    from colddiff.degradations import Degradation


@SAMPLERS.register
class Direct(Sampler):
    """x_0 = R(x_T, T)."""

    name = "direct"
    description = "one estimate R(x_T, T)"
    order = 0
    single_step = True
    needs_omega = False

    def step(
        self, x_t: Image, x0_hat: Image, t: int, s: int, D: Degradation[Any], omega: Omega
    ) -> Image:
        return x0_hat
