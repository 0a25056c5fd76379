"""Downsampling: chained reductions, each scaled back to full size: A_t x B_t^T (PAPER 3.3)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field

from colddiff.degradations.separable import Separable, chained
from colddiff.degradations.spec import DEGRADATIONS, DegradationSpec
from colddiff.errors import SpecError
from colddiff.schedules import FloatTable
from colddiff.spec import Choices, Range
from colddiff.types import ImageShape

LARGEST_TERMINAL = 768
"""Largest number of values in a low-resolution image that a mixture is fitted to: 16x16 RGB."""
Interpolation = Literal["bicubic", "bilinear", "area"]


@DEGRADATIONS.register
class DownsampleSpec(DegradationSpec):
    """Severity t is t chained reductions, step i to 1 / factor^i of the size and back.

    Scaling back is by nearest neighbour. The image's sides must be divisible by factor^T.
    """

    kind: Literal["downsample"] = "downsample"
    num_timesteps: Annotated[
        int,
        Field(ge=1, le=10, description="number of severities T"),
        Range(2, 6, integer=True),
    ] = 3
    factor: Annotated[
        int, Field(ge=2, le=16, description="factor by which each step reduces the size")
    ] = 2
    interpolation: Annotated[
        Interpolation,
        Field(description="kernel of the reduction: half-pixel centres, no antialiasing"),
        Choices(("bicubic", "bilinear", "area")),
    ] = "bicubic"

    def build(self, shape: ImageShape) -> Downsample:
        return Downsample(self, shape)


class Downsample(Separable[DownsampleSpec]):
    """D(x, t) = A_t x B_t^T, A_t and B_t the products of each step's 1-D operators."""

    def __init__(self, spec: DownsampleSpec, shape: ImageShape) -> None:
        super().__init__(spec, shape)
        T, block = spec.num_timesteps, spec.factor**spec.num_timesteps
        for name, side in (("height", shape.height), ("width", shape.width)):
            if side % block:
                deepest = max(t for t in range(T) if side % spec.factor**t == 0)
                way_out = f"num_timesteps={deepest}" if deepest else "another factor or image size"
                raise SpecError(
                    [
                        (
                            "degradation.num_timesteps",
                            f"{T} steps by factor {spec.factor} need a {name} divisible by {block},"
                            f" got {side} px; use {way_out}",
                        )
                    ]
                )

    def terminal(self) -> Mapping[str, Any] | None:
        block = self.spec.factor**self.num_timesteps
        grid = [self.shape.height // block, self.shape.width // block]
        if self.shape.channels * grid[0] * grid[1] > LARGEST_TERMINAL:
            return None
        return {"kind": "gmm", "grid": grid}

    def _products(self, side: int) -> FloatTable:
        spec, T = self.spec, self.num_timesteps
        return chained(reductions(side, spec.factor, T, spec.interpolation), T, side)


def reductions(
    n: int, factor: int, num_timesteps: int, interpolation: Interpolation
) -> Iterator[FloatTable]:
    """Step i's operator for i = 1..T, float64 [n, n]: n to n / factor^i samples, and back."""
    for i in range(1, num_timesteps + 1):
        small = n // factor**i
        down = np.zeros((small, n))
        source, weights = _taps(small, n // small, interpolation)
        # add.at, not assignment: at the edges several taps are clamped to the same sample.
        np.add.at(down, (np.arange(small)[:, None], np.clip(source, 0, n - 1)), weights)
        yield np.repeat(down, n // small, axis=0)


def _taps(
    small: int, scale: int, interpolation: Interpolation
) -> tuple[np.ndarray[tuple[int, int], np.dtype[np.int64]], FloatTable]:
    """Source samples [small, K], not yet clamped, and their weights [K]."""
    first = scale * np.arange(small)[:, None]
    if interpolation == "area":
        return first + np.arange(scale), np.full(scale, 1 / scale)
    # Sample j lies at (j + 1/2) scale - 1/2: between two samples, or on one where scale is odd.
    below, between = divmod(scale - 1, 2)
    if interpolation == "bilinear":
        return first + below + np.arange(2), _linear(between / 2)
    return first + below + np.arange(-1, 3), _cubic(between / 2)


def _linear(u: float) -> FloatTable:
    return np.array([1 - u, u])


def _cubic(u: float, a: float = -0.75) -> FloatTable:
    """Keys' cubic convolution at distance u from the second of four samples."""
    near, far = np.array([u, 1 - u]), np.array([1 + u, 2 - u])
    inner = (a + 2) * near**3 - (a + 3) * near**2 + 1
    outer = a * (far**3 - 5 * far**2 + 8 * far - 4)
    return np.array([outer[0], inner[0], inner[1], outer[1]])
