"""The O(1) blur against the sequential convolutions it replaces."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from colddiff.degradations import build_degradation
from colddiff.degradations.blur import gaussian
from colddiff.types import ImageShape
from tests.bench.nets import BLUR_300
from tests.bench.timing import paired, seconds

SHAPE = ImageShape(3, 128, 128)
BATCH = 8


def measure(place: torch.device) -> dict[str, Any]:
    """A full D at T = 300, 128 px, batch 8, mixed severities: its cost, and two ratios."""
    generator = torch.Generator().manual_seed(0)
    x0 = (torch.rand(BATCH, *SHAPE.chw, generator=generator) * 2 - 1).to(place)
    long = build_degradation(BLUR_300, SHAPE).to(place)
    short = build_degradation({**BLUR_300, "num_timesteps": 10}, SHAPE).to(place)
    t = torch.arange(BATCH) * 37 + 38  # 38..297
    few = torch.arange(BATCH) + 3
    d_s = seconds(lambda: long.degrade(x0, t), 20)
    sequential_s = seconds(lambda: _sequential(x0), 1, 0)
    return {
        "d_t300_ms": 1e3 * d_s,
        "d_t300_over_t10": paired(lambda: long.degrade(x0, t), lambda: short.degrade(x0, few), 20),
        "sequential_to_t300_ms": 1e3 * sequential_s,
        "sequential_over_d": sequential_s / d_s,
    }


def _sequential(x: Tensor) -> Tensor:
    for i in range(300):
        line = torch.from_numpy(gaussian(27, float(torch.exp(torch.tensor(0.01 * i))))).float()
        kernel = (line[:, None] * line[None, :]).expand(3, 1, 27, 27).to(x.device)
        x = functional.conv2d(functional.pad(x, (13,) * 4, mode="circular"), kernel, groups=3)
    return x
