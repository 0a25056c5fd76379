"""The cost of training: FLOPs per image, parameters, bytes of a checkpoint; and MFU."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from colddiff.verbs.train.job import Network, TrainJob

if TYPE_CHECKING:
    from colddiff.restorers import Restorer

BACKWARD = 2
"""A backward pass multiplies about twice as much as the forward pass."""

PEAK_BF16_TFLOPS = (
    ("B200", 2250.0),
    ("H200", 989.0),
    ("H100 PCIe", 756.0),
    ("H100 NVL", 835.0),
    ("H100", 989.0),
    ("A100", 312.0),
    ("A10G", 70.0),
    ("A10", 125.0),
    ("L40S", 362.0),
    ("L4", 121.0),
    ("RTX 4090", 165.0),
    ("RTX 3090", 71.0),
)
"""Dense bf16 peak by part of the card's name (NVIDIA's data sheets); the first match counts.

In fp32 these cards convolve in TF32, at half the rate.
"""


@dataclass(frozen=True, slots=True)
class Cost:
    """Cost of one image and one checkpoint; a multiply-add is two FLOPs, D is not counted."""

    forward_flops: float
    parameters: int
    checkpoint_bytes: int
    """Weights, their moving average and Adam's two moments."""

    @property
    def training_flops(self) -> float:
        """Forward and backward pass of one image."""
        return (1 + BACKWARD) * self.forward_flops


_FOUND: dict[Network, Cost] = {}
"""A search and a study ask again for each of their trainings."""


def cost_of(job: TrainJob) -> Cost:
    """The cost of training ``job``'s restorer, counted on the meta device where possible."""
    if job.network not in _FOUND:
        try:
            _FOUND[job.network] = _counted(job, torch.device("meta"))
        except (NotImplementedError, RuntimeError):
            # A restorer whose forward pass reads values: run one image on the CPU.
            _FOUND[job.network] = _counted(job, torch.device("cpu"))
    return _FOUND[job.network]


def at_most_flops(job: TrainJob) -> float:
    """A bound on ``Cost.training_flops`` without counting, which imports torch's compiler first.

    As if each parameter were used at every pixel of the image: 5 to 28 times what the networks of
    the recipes take. A plugin's restorer that uses its weights more than once may exceed it.
    """
    try:
        with torch.device("meta"):
            restorer = job.restorer.build(job.shape)
    except (NotImplementedError, RuntimeError):
        return math.inf
    pixels = job.shape.height * job.shape.width
    return (1 + BACKWARD) * 2.0 * restorer.num_parameters * pixels


def si_text(value: float) -> str:
    """``2.87 T``, before a unit."""
    for factor, prefix in ((1e18, "E"), (1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M")):
        if value >= factor:
            return f"{value / factor:,.3g} {prefix}"
    return f"{value:,.3g} "


def mfu_per_image_s(job: TrainJob, device: torch.device) -> float | None:
    """Model FLOPs utilisation at one image per second on ``device``; None if no peak is known.

    ``resources.peak_tflops`` overrides the peak by the card's name.
    """
    peak = job.resources.peak_tflops or _peak_tflops(device, job.precision)
    return None if peak is None else cost_of(job).training_flops / (peak * 1e12)


def _peak_tflops(device: torch.device, precision: str) -> float | None:
    if device.type != "cuda":
        return None
    card = torch.cuda.get_device_name(device)
    peak = next((peak for part, peak in PEAK_BF16_TFLOPS if part in card), None)
    return peak if peak is None or precision == "bf16" else peak / 2


def _counted(job: TrainJob, device: torch.device) -> Cost:
    from torch.utils.flop_counter import FlopCounterMode  # with torch's compiler

    with device:
        restorer = job.restorer.build(job.shape)
    x = torch.zeros(1, *job.shape.chw, device=device)
    t = torch.ones(1, dtype=torch.int64, device=device)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        restorer.eval()(x, t)
    return Cost(
        float(counter.get_total_flops()), restorer.num_parameters, _checkpoint_bytes(restorer)
    )


def _checkpoint_bytes(restorer: Restorer) -> int:
    weights: int = sum(value.nbytes for value in restorer.state_dict().values())
    # Beside each trained parameter: its average, Adam's two moments, and Adam's float step.
    beside: int = sum(3 * parameter.nbytes + 4 for parameter in restorer.parameters())
    return weights + beside
