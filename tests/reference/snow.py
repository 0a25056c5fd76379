"""PAPER 3.4: the snow layer of one severity, pixel by pixel where that is plainest, in float64."""

from __future__ import annotations

import math

import numpy as np

from tests.reference.blur import Array, kernel

TABLE = {
    1: (0.1, 3, (0.7, 0.3), 5, (0.5, 5), (0.95, 0.7)),
    2: (0.55, 2.5, (1.15, 0.7), 11, (0.05, 12), (0.95, 0.55)),
    3: (0.55, 2.5, (1.15, 0.7), 11, (0.05, 16), (0.95, 0.4)),
    4: (0.55, 2.5, (1.15, 0.55), 11, (0.05, 20), (0.95, 0.3)),
}


def zoomed(noise: Array, zoom: float) -> Array:
    """Centre crop of side ceil(n / zoom), linear zoom, centre trim."""
    crop = noise
    for axis, n in enumerate(noise.shape):
        few = math.ceil(n / zoom)
        start = (n - few) // 2
        crop = np.take(crop, range(start, start + few), axis=axis)
    sides = [round(few * zoom) for few in crop.shape]
    large = np.empty(sides)
    for r in range(sides[0]):
        for c in range(sides[1]):
            y = r * (crop.shape[0] - 1) / max(sides[0] - 1, 1)
            x = c * (crop.shape[1] - 1) / max(sides[1] - 1, 1)
            value = 0.0
            for row in {math.floor(y), math.ceil(y)}:
                for column in {math.floor(x), math.ceil(x)}:
                    weight = (1 - abs(y - row)) * (1 - abs(x - column))
                    value += weight * crop[min(row, len(crop) - 1), min(column, crop.shape[1] - 1)]
            large[r, c] = value
    top, left = ((many - n) // 2 for many, n in zip(sides, noise.shape, strict=True))
    return large[top : top + noise.shape[0], left : left + noise.shape[1]]


def state(
    x0: Array, base: Array, vertical: bool, t: int, level: int, T: int, fix_brightness: bool
) -> Array:
    """D(x0, t) of one image [C, H, W]."""
    if t == 0:
        return x0
    _, _, threshold, taps, streak, brightness = TABLE[level]
    th, m, b = (np.linspace(a, z, T)[t - 1] for a, z in (threshold, streak, brightness))
    flakes = np.clip(np.where(base < th, 0.0, base), 0, 1)
    lines = flakes.T if vertical else flakes
    filtered = [np.convolve(line, kernel(taps, m))[taps // 2 :][: len(line)] for line in lines]
    layer = np.array(filtered).T if vertical else np.array(filtered)
    image = (x0 + 1) / 2
    if not fix_brightness:
        luma = image[0]
        if len(x0) == 3:
            luma = 0.299 * image[0] + 0.587 * image[1] + 0.114 * image[2]
        image = b * image + (1 - b) * np.maximum(image, 1.5 * luma + 0.5)
    return np.asarray(2 * np.clip(image + layer + np.rot90(layer, 2), 0, 1) - 1)
