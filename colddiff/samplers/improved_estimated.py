"""Algorithm 2 with omega re-estimated at each step: the DDIM step for noise (PAPER 4.1)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from colddiff.errors import SpecError
from colddiff.samplers.base import SAMPLERS, Sampler, full
from colddiff.types import Image, Omega

if TYPE_CHECKING:
    from colddiff.degradations import Degradation


@SAMPLERS.register
class ImprovedEstimated(Sampler):
    """Algorithm 2 with omega from (x_t, x0_hat): x_s = D(x0_hat, s, omega).

    D(x0_hat, t, omega) = x_t by construction, so that the other two terms cancel.
    """

    name = "improved_estimated"
    label = "Algorithm 2 (omega estimated)"
    description = "Algorithm 2, omega estimated at each step"
    order = 3
    needs_omega = False

    def step(
        self, x_t: Image, x0_hat: Image, t: int, s: int, D: Degradation[Any], omega: Omega
    ) -> Image:
        estimated = D.estimate_omega(x_t, x0_hat, full(x_t, t))
        if estimated is None:
            raise SpecError([("sampler", f"{self.name}: {_cannot(D)}")])
        return D.degrade(x0_hat, full(x_t, s), estimated)

    def unfit(self, D: Degradation[Any]) -> str | None:
        return None if D.estimates_omega else _cannot(D)


def _cannot(D: Degradation[Any]) -> str:
    return (
        f"degradation {D.spec.kind!r} cannot re-estimate omega from an image; use the sampler "
        "improved"
    )
