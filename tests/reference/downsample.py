"""PAPER 3.3: resize the full-size image down, then nearest up, step after step, in float64."""

from __future__ import annotations

import math

import numpy as np

from tests.reference.blur import Array


def cubic(distance: float, a: float = -0.75) -> float:
    d = abs(distance)
    if d <= 1:
        return ((a + 2) * d - (a + 3)) * d * d + 1
    return ((d - 5) * d + 8) * d * a - 4 * a if d < 2 else 0.0


def shrunk(x: Array, small: int, interpolation: str) -> Array:
    """The last axis resized to ``small`` samples: half-pixel centres, clamped edges."""
    n = x.shape[-1]
    scale = n / small
    found = []
    for j in range(small):
        if interpolation == "area":
            found.append(x[..., round(j * scale) : round((j + 1) * scale)].mean(axis=-1))
            continue
        position = (j + 0.5) * scale - 0.5
        if interpolation == "bilinear":
            position = max(position, 0.0)
        value, reach = np.zeros(x.shape[:-1]), 1 if interpolation == "bilinear" else 2
        for tap in range(math.floor(position) - reach + 1, math.floor(position) + reach + 1):
            distance = position - tap
            weight = max(0.0, 1 - abs(distance)) if reach == 1 else cubic(distance)
            value = value + weight * x[..., min(max(tap, 0), n - 1)]
        found.append(value)
    return np.stack(found, axis=-1)


def step(x: Array, factor: int, interpolation: str) -> Array:
    """One reduction of both axes by ``factor``, and nearest neighbours back to full size."""
    for _ in range(2):
        n = x.shape[-1]
        x = shrunk(x, n // factor, interpolation)
        x = np.stack([x[..., math.floor((j + 0.5) * x.shape[-1] / n)] for j in range(n)], axis=-1)
        x = np.swapaxes(x, -1, -2)
    return x


def states(x0: Array, factor: int, T: int, interpolation: str) -> Array:
    """D(x0, t) for t = 0..T."""
    found = [x0]
    for i in range(T):
        found.append(step(found[-1], factor ** (i + 1), interpolation))
    return np.stack(found)
