"""PAPER 3.1 and 4.2: t separable convolutions one after the other, in float64."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def kernel(size: int, sigma: float) -> Array:
    taps = np.array([np.exp(-((j - (size - 1) / 2) ** 2) / (2 * sigma**2)) for j in range(size)])
    return np.asarray(taps / taps.sum())


def convolved(x: Array, taps: Array, padding: str) -> Array:
    """One step: each axis of [..., H, W] filtered with ``taps``."""
    half = len(taps) // 2
    mode = {"circular": "wrap", "reflect": "reflect"}[padding]
    for axis in (-1, -2):
        n = x.shape[axis]
        moved = np.moveaxis(x, axis, -1)
        padded = np.pad(moved, [(0, 0)] * (x.ndim - 1) + [(half, half)], mode=mode)  # type: ignore[call-overload]
        summed = sum(tap * padded[..., j : j + n] for j, tap in enumerate(taps))
        x = np.moveaxis(np.asarray(summed), -1, axis)
    return x


def states(
    x0: Array, sigmas: NDArray[Any], size: int, padding: str, collapse_to_mean: bool = False
) -> Array:
    """D(x0, t) for t = 0..T, float64 [T + 1, ...]."""
    found = [x0]
    for sigma in sigmas:
        found.append(convolved(found[-1], kernel(size, float(sigma)), padding))
    if collapse_to_mean:
        found[-1] = np.broadcast_to(x0.mean(axis=(-2, -1), keepdims=True), x0.shape)
    return np.stack(found)
