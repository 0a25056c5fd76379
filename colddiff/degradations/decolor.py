"""Decolouring: colours fade to the mean of their channels (PAPER 3.5)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

import numpy as np
import torch
from pydantic import Field

from colddiff.degradations.base import Degradation
from colddiff.degradations.spec import DEGRADATIONS, DegradationSpec
from colddiff.spec import Choices, Range
from colddiff.types import Image, ImageShape, Omega, Severity

if TYPE_CHECKING:
    from torch import Tensor


@DEGRADATIONS.register
class DecolorSpec(DegradationSpec):
    """Severity t keeps a fraction a_t of the colour: 1 - t/T (``linear``) or ema_factor^t."""

    kind: Literal["decolor"] = "decolor"
    num_timesteps: Annotated[
        int,
        Field(ge=1, le=4000, description="number of severities T"),
        Range(5, 200, log=True, integer=True),
    ] = 20
    schedule: Annotated[
        Literal["linear", "constant"],
        Field(description="each step removes the same amount of colour, or the same fraction"),
        Choices(("linear", "constant")),
    ] = "linear"
    ema_factor: Annotated[
        float,
        Field(gt=0, lt=1, description="fraction of the colour that a step keeps (constant only)"),
        Range(0.5, 0.99),
    ] = 0.9
    total_remove: Annotated[
        bool,
        Field(description="no colour remains at T; always so with schedule=linear"),
    ] = True

    def build(self, shape: ImageShape) -> Decolor:
        return Decolor(self, shape)


class Decolor(Degradation[DecolorSpec]):
    """D(x, t) = a_t x + (1 - a_t) P x, P the plain mean over channels (not luma)."""

    parameter_tables = ("kept",)

    def _make_tables(self) -> dict[str, Tensor]:
        spec, T = self.spec, self.num_timesteps
        t = np.arange(T + 1, dtype=np.float64)
        kept = 1 - t / T if spec.schedule == "linear" else spec.ema_factor**t
        if spec.total_remove:
            kept[-1] = 0
        return {"kept": torch.from_numpy(kept)}

    def _degrade(self, x0: Image, t: Severity, omega: Omega) -> Image:
        kept = self._tables(x0)["kept"][t].view(-1, 1, 1, 1)
        return torch.lerp(x0.mean(dim=1, keepdim=True).expand_as(x0), x0, kept)
