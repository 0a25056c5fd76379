"""PAPER 3.5: one 1x1 convolution e_i I + (1 - e_i) P after the other, in float64."""

from __future__ import annotations

import numpy as np

from tests.reference.blur import Array


def states(x0: Array, T: int, schedule: str, ema_factor: float, total_remove: bool) -> Array:
    """D(x0, t) for t = 0..T of one image [C, H, W]."""
    channels = len(x0)
    mean = np.full((channels, channels), 1 / channels)
    found = [x0]
    for i in range(T):
        e = 1 - 1 / (T - i) if schedule == "linear" else ema_factor
        if total_remove and i == T - 1:
            e = 0
        mixing = e * np.eye(channels) + (1 - e) * mean
        found.append(np.einsum("dc,chw->dhw", mixing, found[-1]))
    return np.stack(found)
