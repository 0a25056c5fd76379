"""The paper's networks and degradations at its sizes: what one step of each costs."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from colddiff.degradations import Degradation, build_degradation
from colddiff.objective import restoration_loss
from colddiff.restorers import Restorer, build_restorer
from colddiff.restorers.precision import bf16_is_slow
from colddiff.sampling import sample
from colddiff.types import ImageShape
from tests.bench.timing import seconds

BLUR_300: dict[str, Any] = {
    "kind": "blur",
    "num_timesteps": 300,
    "kernel_size": 27,
    "sigma": {"kind": "exponential", "rate": 0.01},
}


@dataclass(frozen=True, slots=True)
class Case:
    """A network of the paper at one image size, and a batch that fits the device."""

    name: str
    restorer: dict[str, Any]
    size: int
    batch: int


def cases(gpu: bool) -> list[Case]:
    """PAPER 2.1: the ConvNeXt U-Net at 32 and 128 px, the DDPM U-Net at 32 px."""
    convnext = {"kind": "convnext_unet"}
    return [
        Case("convnext_unet 32 px", convnext, 32, 128 if gpu else 16),
        Case("ddpm_unet 32 px", {"kind": "ddpm_unet"}, 32, 128 if gpu else 8),
        Case("convnext_unet 128 px", convnext, 128, 64 if gpu else 2),
    ]


def measure(case: Case, place: torch.device, repeats: int) -> dict[str, Any]:
    """img/s of training (fp32; bf16 where it is fast) and sampling, GFLOP per image, cost of D."""
    shape = ImageShape(3, case.size, case.size)
    D = build_degradation(BLUR_300, shape).to(place)
    R = build_restorer(case.restorer, shape).to(place)
    optimizer = torch.optim.Adam(R.parameters(), fused=True)
    generator = torch.Generator().manual_seed(0)
    x0 = (torch.rand(case.batch, *shape.chw, generator=generator) * 2 - 1).to(place)
    t = torch.randint(1, 301, (case.batch,), generator=generator)
    row: dict[str, Any] = {"net": case.name, "batch": case.batch, "parameters": R.num_parameters}
    row["forward_gflop"] = _gflop(R, x0[:1], t[:1].to(place))
    # Imitated, it is twenty times slower than fp32 and says nothing of the network.
    for precision in ("fp32",) if bf16_is_slow(place) else ("fp32", "bf16"):
        per_step = seconds(partial(_step, R, D, optimizer, x0, t, precision), repeats)
        row[f"train_{precision}_img_s"] = case.batch / per_step
        # Forward and backward are three forwards' worth of multiplications (PAPER 2.1: 2 x MAC).
        row[f"train_{precision}_tflops"] = 3e-3 * row["forward_gflop"] * case.batch / per_step
    row["degrade_ms"] = 1e3 * seconds(lambda: D.degrade(x0, t), repeats)
    row["degrade_share_of_step"] = row["degrade_ms"] / (1e3 * per_step)
    R.eval()
    sampled = seconds(lambda: sample(R, D, x0, {}, severities=[300, 299, 298, 0]), repeats) / 3
    row["sampling_step_img_s"] = case.batch / sampled
    return row


def _step(
    R: Restorer,
    D: Degradation[Any],
    optimizer: torch.optim.Optimizer,
    x0: Tensor,
    t: Tensor,
    precision: str,
) -> None:
    optimizer.zero_grad(set_to_none=True)
    with torch.autocast(x0.device.type, torch.bfloat16, enabled=precision == "bf16"):
        loss = restoration_loss(lambda x, s: R(x, s.to(x.device)), D, x0, t, {}).mean()
    torch.autograd.backward(loss)
    optimizer.step()


def _gflop(R: Restorer, x: Tensor, t: Tensor) -> float:
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        R(x, t)
    return float(counter.get_total_flops()) / 1e9
