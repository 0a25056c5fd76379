"""A plugin of a user's own; an id depends on every byte of it."""

from __future__ import annotations

from typing import Any, Literal

from torch import Tensor

from colddiff.degradations import DEGRADATIONS, Degradation, DegradationSpec
from colddiff.types import Image, ImageShape, Omega, Severity


@DEGRADATIONS.register
class FadeSpec(DegradationSpec):
    """Severity t fades the image to grey."""

    kind: Literal["fade_of_my_own"] = "fade_of_my_own"
    strength: float = 1.0

    def build(self, shape: ImageShape) -> Degradation[Any]:
        return Fade(self, shape)


class Fade(Degradation[FadeSpec]):
    """D(x0, t) = (1 - strength t / T) x0."""

    def _degrade(self, x0: Image, t: Severity, omega: Omega) -> Tensor:
        weight = (t / self.num_timesteps).to(x0.dtype).view(-1, 1, 1, 1)
        return x0 * (1 - self.spec.strength * weight)
