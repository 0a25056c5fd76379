"""Sampling against the paper's way of computing: Algorithm 2 at T = 300, 128 px, 56.6 M parameters.

The paper's code applies D by running its convolutions one after the other, from the clean estimate
to severity s and again to s - 1, in fp32, for each of the T severities (PAPER 3.1, 4.2 and 10), and
its network operation by operation (PAPER 2.1).
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from colddiff.degradations import build_degradation
from colddiff.degradations.blur import gaussian
from colddiff.restorers import Restorer, build_restorer, for_inference
from colddiff.samplers import SAMPLERS
from colddiff.sampling import falling
from colddiff.types import ImageShape
from tests.bench.nets import BLUR_300
from tests.bench.timing import describe, precisions, seconds
from tests.reference import convnext_unet

T, FEW, TAPS = 300, 30, 27
SHAPE = ImageShape(3, 128, 128)
MEASURED = (300, 273, 246, 218, 191, 164, 137, 110, 83, 55, 28, 1)

Step = Callable[[Tensor, int], Tensor]


def measure(place: torch.device, batch: int = 16) -> dict[str, Any]:
    """Seconds per step at twelve severities for each way, their sums over the schedule, ratios."""
    ours = precisions(place)
    torch.manual_seed(0)
    R = build_restorer({"kind": "convnext_unet"}, SHAPE).to(place).eval()
    x = torch.rand(batch, *SHAPE.chw, device=place) * 2 - 1
    ways: dict[str, Step] = {"paper": _paper(R, place)}
    ways |= {f"ours_{precision}": _ours(R, place, precision) for precision in ours}
    times: dict[str, list[float]] = {name: [] for name in ways}
    with torch.inference_mode():
        for step in ways.values():
            step(x, 2)
        for s in MEASURED:
            # In turn at each severity: what else the machine does falls on all of them.
            for name, step in ways.items():
                times[name].append(seconds(lambda step=step, s=s: step(x, s), 1, 0))  # type: ignore[misc]
        direct = {precision: _direct(R, x, precision) for precision in ours}
    per_step = {name: dict(zip(MEASURED, row, strict=True)) for name, row in times.items()}
    return {
        "what": f"Algorithm 2, T = {T}, {SHAPE} px, batch {batch}, {R.num_parameters:,} parameters",
        "device": describe(place),
        "seconds_per_step": per_step,
        "direct_seconds_per_step": direct,
        **_summed(per_step, direct),
    }


def _summed(per_step: dict[str, dict[int, float]], direct: dict[str, float]) -> dict[str, float]:
    """Whole trajectories: the cost of each severity is interpolated between the measured ones."""
    every, few = range(T, 0, -1), falling(FEW, T)[:-1]
    found = {"paper_s": _total(per_step["paper"], every)}
    for precision in direct:
        ours = per_step[f"ours_{precision}"]
        found |= {
            f"ours_{precision}_s": _total(ours, every),
            f"ours_{precision}_{FEW}_severities_s": _total(ours, few),
            f"direct_{precision}_s": T * direct[precision],
        }
        found |= {
            f"paper_over_ours_{precision}": found["paper_s"] / found[f"ours_{precision}_s"],
            f"paper_over_ours_{precision}_{FEW}_severities": found["paper_s"]
            / found[f"ours_{precision}_{FEW}_severities_s"],
            f"ours_over_direct_{precision}": found[f"ours_{precision}_s"]
            / found[f"direct_{precision}_s"],
        }
    return found


def _total(cost: dict[int, float], severities: Any) -> float:
    known = sorted(cost)
    return float(np.interp(list(severities), known, [cost[s] for s in known]).sum())


def _paper(R: Restorer, place: torch.device) -> Step:
    """x - D(x0_hat, s) + D(x0_hat, s - 1), each D a chain of depthwise 27x27 convolutions."""
    kernels = [_kernel(i).to(place) for i in range(T)]

    def blurred(x: Tensor, s: int) -> Tensor:
        for kernel in kernels[:s]:
            padded = functional.pad(x, (TAPS // 2,) * 4, mode="circular")
            x = functional.conv2d(padded, kernel, groups=x.shape[1])
        # `discrete`: the last severity is the channel means.
        return x.mean(dim=(2, 3), keepdim=True).expand_as(x) if s == T else x

    weights = R.state_dict()

    def step(x: Tensor, s: int) -> Tensor:
        t = torch.full((len(x),), s, device=x.device)
        x0_hat = convnext_unet.restored(weights, x, t)
        return x - blurred(x0_hat, s) + blurred(x0_hat, s - 1)

    return step


def _kernel(i: int) -> Tensor:
    line = torch.from_numpy(gaussian(TAPS, float(np.exp(0.01 * i)))).float()
    return (line[:, None] * line[None, :]).expand(SHAPE.channels, 1, TAPS, TAPS).contiguous()


def _ours(R: Restorer, place: torch.device, precision: str) -> Step:
    D = build_degradation({**BLUR_300, "collapse_to_mean": True}, SHAPE).to(place)
    quick = for_inference(R)

    def step(x: Tensor, s: int) -> Tensor:
        t = torch.full((len(x),), s, device=x.device)
        with torch.autocast(place.type, torch.bfloat16, enabled=precision == "bf16"):
            x0_hat = quick(x, t)
        return SAMPLERS["improved"].step(x, x0_hat.float(), s, s - 1, D, {})

    return step


def _direct(R: Restorer, x: Tensor, precision: str) -> float:
    """Seconds of the network's multiplications alone, at the rate of a large matrix product.

    With its convolutions taken directly: a quarter of them is enough for the wide ones.
    """
    with FlopCounterMode(display=False) as counter:
        R(x, torch.full((len(x),), T, device=x.device))
    side = 2048
    a = torch.rand(side, side, device=x.device)
    a = a.bfloat16() if precision == "bf16" else a
    rate = 2 * side**3 / seconds(lambda: a @ a, 5)
    return float(counter.get_total_flops()) / rate


def report(place: torch.device, *, as_json: bool = False) -> None:
    """Prints what ``measure`` finds; about six minutes on two calm cores."""
    began = time.perf_counter()
    found = measure(place)
    found["measured_in_s"] = time.perf_counter() - began
    if as_json:
        print(json.dumps(found, indent=2))
        return
    per_step, direct = found.pop("seconds_per_step"), found.pop("direct_seconds_per_step")
    print(f"{found.pop('what')}\n{found.pop('device')}; seconds per step:\n")
    print("".join(f"{name:>12}" for name in ("severity", *per_step)))
    for s in MEASURED:
        print(f"{s:>12}" + "".join(f"{row[s]:>12.3f}" for row in per_step.values()))
    for precision, value in direct.items():
        print(f"\n  multiplications of direct convolutions, {precision}: {value:.3f} s per step")
    for name, value in found.items():
        print(f"  {name:36} {value:,.4g}")
