"""The O(1) blur against the sequential convolutions it replaces.

D(x, t) = A_t x B_t^T of one image takes 4 C n^3 floating point operations, 2 x multiplications, at
every severity: 25 MFLOP for 3 x 128 x 128. The convolutions of the paper's code take
2 C n^2 27^2 for each of t steps: 21 GFLOP at T = 300. So no more than 860 times less is to be had
from operations alone; depthwise convolutions run further below a machine's peak than matrix
products do. ``d_over_floor`` is D's time over those operations at the speed of a large matrix
product in the same run: what is left are the gather of one A_t for each image (its 64 KiB are read
and written), checks, and products too small to reach that speed.

One thread of a busy machine, three runs: ``d_t300_over_t10`` 0.81, 1.03 and 1.06,
``sequential_over_d`` 1190, 1690 and 2720, ``d_over_floor`` 2.1 to 3.1.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from colddiff.degradations import build_degradation
from colddiff.degradations.blur import gaussian
from colddiff.types import ImageShape
from tests.bench.nets import BLUR_300
from tests.bench.timing import matmul_gflops, paired, seconds

SHAPE = ImageShape(3, 128, 128)
BATCH = 8
GFLOP = 4e-9 * SHAPE.channels * SHAPE.height**3 * BATCH
"""Of one D on the batch."""


def measure(place: torch.device) -> dict[str, Any]:
    """A full D at T = 300, 128 px, batch 8, mixed severities: its cost, its floor, two ratios."""
    generator = torch.Generator().manual_seed(0)
    x0 = (torch.rand(BATCH, *SHAPE.chw, generator=generator) * 2 - 1).to(place)
    long = build_degradation(BLUR_300, SHAPE).to(place)
    short = build_degradation({**BLUR_300, "num_timesteps": 10}, SHAPE).to(place)
    t = torch.arange(BATCH) * 37 + 38  # 38..297
    few = torch.arange(BATCH) + 3
    d_s = seconds(lambda: long.degrade(x0, t), 20)
    sequential_s = seconds(lambda: _sequential(x0), 1, 0)
    return {
        "blur_gflop": GFLOP,
        "d_t300_ms": 1e3 * d_s,
        "d_over_floor": d_s * matmul_gflops(place) / GFLOP,
        "d_t300_over_t10": paired(lambda: long.degrade(x0, t), lambda: short.degrade(x0, few), 20),
        "sequential_to_t300_ms": 1e3 * sequential_s,
        "sequential_over_d": sequential_s / d_s,
    }


def _sequential(x: Tensor) -> Tensor:
    """What the paper's code runs: a 27x27 depthwise convolution for each severity up to T."""
    for i in range(300):
        line = torch.from_numpy(gaussian(27, float(torch.exp(torch.tensor(0.01 * i))))).float()
        kernel = (line[:, None] * line[None, :]).expand(3, 1, 27, 27).to(x.device)
        x = functional.conv2d(functional.pad(x, (13,) * 4, mode="circular"), kernel, groups=3)
    return x
