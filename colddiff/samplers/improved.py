"""Algorithm 2 of Cold Diffusion: subtracts from x_t what D changes between two severities."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from colddiff.samplers.base import SAMPLERS, Sampler, full
from colddiff.types import Image, Omega

if TYPE_CHECKING:
    from colddiff.degradations import Degradation


@SAMPLERS.register
class Improved(Sampler):
    """Algorithm 2: x_s = x_t - D(x0_hat, t) + D(x0_hat, s), for s < t.

    Where D(x, s) = x + s e with e independent of x, the result does not depend on ``x0_hat``: any
    restorer recovers x0 exactly (``tests/laws/test_sampler_laws.py``).
    """

    name = "improved"
    label = "Algorithm 2 (improved)"
    column = "sampled"
    order = 2

    def step(
        self, x_t: Image, x0_hat: Image, t: int, s: int, D: Degradation[Any], omega: Omega
    ) -> Image:
        # Same omega in both terms: with fresh randomness their difference is noise, not a step.
        return x_t - D.degrade(x0_hat, full(x_t, t), omega) + D.degrade(x0_hat, full(x_t, s), omega)
