"""Synthetic images from a seed, with the 1/f spectrum and sharp edges of photographs."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from colddiff.degradations import Degradation
from colddiff.rng import stream, streams
from colddiff.types import Image, ImageShape

DISCS = 4


def synthetic_images(shape: ImageShape, count: int, seed: int = 0) -> Image:
    """float32 [count, C, H, W] in [-1, 1]: 1/f noise behind a few sharp discs.

    Image ``i`` is a function of (shape, seed, i) alone.
    """
    drawn = [_one(shape, rng) for rng in streams(seed, "synthetic", range(count))]
    return torch.from_numpy(np.stack(drawn)) if drawn else torch.empty(0, *shape.chw)


def synthetic_omega(D: Degradation[Any], batch: int, seed: int = 0) -> dict[str, Tensor]:
    """omega of a batch; synthetic images take the place of a second image set."""
    if D.omega_images:
        return {name: synthetic_images(D.shape, batch, seed + 1) for name in D.omega_images}
    return D.draw(batch, rng=[stream(seed, "synthetic/omega", i) for i in range(batch)])


def _one(shape: ImageShape, rng: np.random.Generator) -> NDArray[np.float32]:
    height, width = shape.height, shape.width
    colours = rng.uniform(-0.8, 0.8, (DISCS, shape.channels, 1, 1))
    image = 0.35 * _clouds(shape, rng)
    rows, columns = np.mgrid[:height, :width]
    for colour in colours:
        y, x = rng.uniform(0, height), rng.uniform(0, width)
        radius = rng.uniform(0.08, 0.3) * min(height, width)
        inside = (rows - y) ** 2 + (columns - x) ** 2 < radius**2
        image = np.where(inside, 0.6 * colour + 0.4 * image, image)
    return np.asarray(np.clip(image, -1, 1), dtype=np.float32)


def _clouds(shape: ImageShape, rng: np.random.Generator) -> NDArray[np.float64]:
    """Unit-variance noise of amplitude 1/f, with correlated channels as in photographs."""
    vertical = np.fft.fftfreq(shape.height)[:, None]
    horizontal = np.fft.rfftfreq(shape.width)[None, :]
    falling = 1 / np.maximum(np.hypot(vertical, horizontal), 1 / max(shape.chw[1:]))
    shared = rng.standard_normal((1, shape.height, shape.width))
    own = rng.standard_normal(shape.chw)
    noise = np.fft.irfft2(np.fft.rfft2(0.9 * shared + 0.4 * own) * falling, shape.chw[1:])
    return np.asarray(noise / max(float(noise.std()), 1e-12))
