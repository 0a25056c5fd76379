"""Timing on a noisy machine: medians of repeats, and ratios taken side by side in one run."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import torch


def device() -> torch.device:
    """The GPU if there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def describe(place: torch.device) -> str:
    """The device in words."""
    if place.type == "cuda":
        return torch.cuda.get_device_name(place)
    return f"CPU, {torch.get_num_threads()} threads"


def precisions(place: torch.device) -> list[str]:
    """fp32, and bf16 where the device multiplies in it (elsewhere it is many times slower)."""
    native = place.type == "cuda" or torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return ["fp32", "bf16"] if native else ["fp32"]


def seconds(work: Callable[[], object], repeats: int = 5, warmup: int = 1) -> float:
    """Median seconds of one call, the device drained before and after."""
    times = []
    for n in range(warmup + repeats):
        _drain()
        began = time.perf_counter()
        work()
        _drain()
        if n >= warmup:
            times.append(time.perf_counter() - began)
    return statistics.median(times)


def paired(a: Callable[[], object], b: Callable[[], object], repeats: int = 5) -> float:
    """Median of seconds(a) / seconds(b) over pairs run in turn, so that drift cancels."""
    return statistics.median(seconds(a, 1, 0) / seconds(b, 1, 0) for _ in range(repeats))


def matmul_gflops(place: torch.device, side: int = 1024) -> float:
    """What this device does in a large float32 matrix product, the floor of those that are not."""
    a, b = (torch.rand(side, side, device=place) for _ in range(2))
    return 2e-9 * side**3 / seconds(lambda: a @ b, 5)


def copy_gb_s(place: torch.device, megabytes: int = 256) -> float:
    """Gigabytes read and written per second by a copy too large for a cache."""
    a = torch.rand(megabytes * 2**18, device=place)
    b = torch.empty_like(a)
    return 2 * 4e-9 * a.numel() / seconds(lambda: b.copy_(a), 5)


def _drain() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
