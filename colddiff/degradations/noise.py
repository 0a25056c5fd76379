"""Hot diffusion: Gaussian noise, held fixed or re-estimated along a trajectory (PAPER 4.1)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from colddiff.degradations.mixing import Mixing, MixingSpec
from colddiff.degradations.spec import DEGRADATIONS
from colddiff.types import ImageShape


@DEGRADATIONS.register
class NoiseSpec(MixingSpec):
    """Severity t mixes in Gaussian noise z; D(x0, T) is almost pure noise."""

    kind: Literal["noise"] = "noise"

    def build(self, shape: ImageShape) -> Noise:
        return Noise(self, shape)


class Noise(Mixing[NoiseSpec]):
    """D(x0, t) = sqrt(abar_t) x0 + sqrt(1 - abar_t) z with z ~ N(0, I)."""

    def terminal(self) -> Mapping[str, Any]:
        return {"kind": "standard_normal"}

    def _draw_row(self, rng: np.random.Generator) -> Mapping[str, NDArray[Any]]:
        return {"z": rng.standard_normal(self.shape.chw, dtype=np.float32)}
