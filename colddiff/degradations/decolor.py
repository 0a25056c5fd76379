"""Decolouring: colours fade into the mean of their channels (PAPER 3.5)."""

from __future__ import annotations

from typing import Annotated, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from colddiff.degradations.base import Degradation
from colddiff.degradations.spec import DEGRADATIONS, DegradationSpec
from colddiff.spec import Choices, Range
from colddiff.types import Image, ImageShape, Omega, Severity


@DEGRADATIONS.register
class DecolorSpec(DegradationSpec):
    """Severity t keeps a part a_t of the colour: 1 - t/T (``linear``) or ema_factor^t."""

    kind: Literal["decolor"] = "decolor"
    num_timesteps: Annotated[
        int,
        Field(ge=1, le=4000, description="number of severities T"),
        Range(5, 200, log=True, integer=True),
    ] = 20
    schedule: Annotated[
        Literal["linear", "constant"],
        Field(description="the same amount of colour lost at each step, or the same part of it"),
        Choices(("linear", "constant")),
    ] = "linear"
    ema_factor: Annotated[
        float,
        Field(gt=0, lt=1, description="part of the colour each step keeps; schedule=constant only"),
        Range(0.5, 0.99),
    ] = 0.9
    total_remove: Annotated[
        bool,
        Field(description="no colour is left at T; schedule=linear gets there in any case"),
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
