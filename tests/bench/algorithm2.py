"""D's share of a step of Algorithm 2, with the 56.6 M network at 128 px, for every kind.

A step is one R and D of its estimate at two severities. R takes 67.4 GFLOP for an image, both D of
a blur 0.05, of the other kinds less. They cannot take less than it takes to read the state and the
estimate and to write the next state, 0.6 MB for an image of 3 x 128 x 128: the floor that
``d_over_floor`` is in units of, at the speed of a large copy in the same run. The gap: two calls of
D read the estimate twice and make both images before they are subtracted (1.5 MB), and with two
images each of their dozen small operations costs its launch. Offering the difference of two
severities in one call would save half of what is below half a percent.

One thread of a busy machine, batch 2, three runs: shares of 0.01 to 0.44 %, bounded by 3 %.
"""

from __future__ import annotations

from typing import Any

import torch

from colddiff.degradations import DEGRADATIONS, build_degradation
from colddiff.restorers import build_restorer
from colddiff.rng import streams
from colddiff.samplers import SAMPLERS
from colddiff.types import ImageShape
from tests.bench.nets import BLUR_300
from tests.bench.timing import copy_gb_s, seconds

SHAPE = ImageShape(3, 128, 128)
GB = 3 * 4e-9 * SHAPE.channels * SHAPE.height * SHAPE.width
"""An image's state, estimate and next state in float32."""


def measure(place: torch.device, batch: int, repeats: int = 3) -> dict[str, Any]:
    """Milliseconds of R, and for each kind the share of both D in R and both D, in percent."""
    generator = torch.Generator().manual_seed(0)
    x_t, x0_hat = (
        (torch.rand(batch, *SHAPE.chw, generator=generator) * 2 - 1).to(place) for _ in range(2)
    )
    R = build_restorer({"kind": "convnext_unet"}, SHAPE).to(place).eval()
    t = torch.full((batch,), 100, device=place)
    with torch.inference_mode():
        r_s = seconds(lambda: R(x_t, t), repeats)
        speed = copy_gb_s(place)
        row: dict[str, Any] = {"step": "Algorithm 2 at 128 px", "batch": batch, "r_ms": 1e3 * r_s}
        for kind in DEGRADATIONS:
            spec = BLUR_300 if kind == "blur" else {"kind": kind}
            D = build_degradation(spec, SHAPE).to(place)
            drawn = D.draw(batch, rng=streams(0, "bench", range(batch)), images=lambda _: x0_hat)
            omega, T = D.place_omega(drawn, x_t), D.num_timesteps
            step = SAMPLERS["improved"].step
            d_s = seconds(lambda: step(x_t, x0_hat, T // 2 + 1, T // 2, D, omega), 20)  # noqa: B023
            row[f"{kind}_share_percent"] = 100 * d_s / (r_s + d_s)
            row[f"{kind}_d_over_floor"] = d_s * speed / (GB * batch)
    return row
