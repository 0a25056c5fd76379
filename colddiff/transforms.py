"""What happens to stored images before D sees them: resized, cropped, mirrored (PAPER 2.2).

It happens to whole batches, on the device, and not when a set is packed: one packed set then serves
every system of the paper, and a random crop is of the image that was stored. Integers go in and
come out. Where a training image is cut out and whether it is mirrored follow from (seed, position).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Literal, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from colddiff.errors import DataError
from colddiff.rng import words
from colddiff.types import Image, ImageShape

Augment: TypeAlias = Literal[
    "none",
    "flip",
    "paper/crop112",
    "paper/centre112",
    "paper/pad4",
    "paper/resize",
    "paper/centre",
]

BITS = 22
"""Binary places of a resizing weight: those of Pillow, whose rounding is matched bit for bit."""


@dataclass(frozen=True, slots=True)
class Preset:
    """One row of PAPER 2.2. Test images get the same resizing and the crop in the centre."""

    zoom: float | None = None
    """Side of the square an image is resized to, in sides of the result; None: not resized."""
    pad: int = 0
    """Black px around a training image before it is cropped."""
    random_crop: bool = False
    flip: bool = False
    exact: bool = False
    """Stored images must have the size of the result."""


PRESETS: Mapping[str, Preset] = {
    "none": Preset(exact=True),
    "flip": Preset(flip=True, exact=True),
    "paper/crop112": Preset(1.12, random_crop=True, flip=True),
    "paper/centre112": Preset(1.12),
    "paper/pad4": Preset(1.0, pad=4, random_crop=True, flip=True),
    "paper/resize": Preset(1.0),
    "paper/centre": Preset(),
}


class Transform:
    """The preset ``augment`` from ``stored`` images [C, H, W] to those of ``shape``.

    Raises DataError where images of that shape cannot become those.
    """

    def __init__(self, augment: Augment, stored: tuple[int, int, int], shape: ImageShape) -> None:
        problem = unsuited(augment, stored, shape)
        if problem is not None:
            raise DataError(problem)
        self.augment = augment
        self._preset = preset = PRESETS[augment]
        self._stored = stored[1:]
        self._size = shape.height
        side = None if preset.zoom is None else int(preset.zoom * self._size)
        self._side = None if side is None or self._stored == (side, side) else side
        self._resized = self._stored if side is None else (side, side)

    @property
    def changes_test_images(self) -> bool:
        """False where a stored image is a test image as it is."""
        return self._side is not None or self._resized != (self._size, self._size)

    def views(self, seed: int, positions: NDArray[np.int64]) -> Tensor:
        """int64 [B, 3]: first row and column of each training crop, and whether it is mirrored.

        Functions of (seed, position) alone; ``positions`` are consecutive running numbers.
        """
        count = len(positions)
        crops = words(seed, "train/crop", int(positions[0]), count) if self._crops else np.zeros(0)
        flips = words(seed, "train/flip", int(positions[0]), count) if self._flips else np.zeros(0)
        return self._views(count, crops.astype(np.uint64), flips.astype(np.uint64))

    def views_of(self, rng: Sequence[np.random.Generator]) -> Tensor:
        """The same, each row by its own generator."""
        drawn = [
            [g.integers(2**64, dtype=np.uint64) for g in rng] if wanted else []
            for wanted in (self._crops, self._flips)
        ]
        return self._views(len(rng), *(np.array(part, np.uint64) for part in drawn))

    def train(self, images: Tensor, views: Tensor) -> Tensor:
        """Training images [B, C, n, n] of stored ones, of their type, on their device."""
        if not (self._crops or self._flips):
            return self.test(images)
        x = self._enlarged(images)
        pad = self._preset.pad
        if pad:
            x = functional.pad(x, (pad, pad, pad, pad))
        views = views.to(x.device, non_blocking=True)
        along = torch.arange(self._size, device=x.device)
        top, left, mirrored = (views[:, n, None] for n in range(3))
        rows = top + along
        columns = left + torch.where(mirrored > 0, self._size - 1 - along, along)
        batch, channels, _, width = x.shape
        x = x.gather(2, rows[:, None, :, None].expand(batch, channels, self._size, width))
        x = x.gather(3, columns[:, None, None, :].expand(batch, channels, self._size, self._size))
        return _typed(x, images.dtype)

    def test(self, images: Tensor) -> Tensor:
        """Test images [B, C, n, n] of stored ones: the crop in the centre, nothing by chance."""
        if not self.changes_test_images:
            return images
        top, left = (centre(side, self._size) for side in self._resized)
        x = self._enlarged(images)[..., top : top + self._size, left : left + self._size]
        return _typed(x.contiguous(), images.dtype)

    @property
    def _crops(self) -> bool:
        return self._preset.random_crop

    @property
    def _flips(self) -> bool:
        return self._preset.flip

    def _views(self, count: int, crops: NDArray[np.uint64], flips: NDArray[np.uint64]) -> Tensor:
        views = np.zeros((count, 3), np.int64)
        if self._crops:
            spare = [side + 2 * self._preset.pad - self._size + 1 for side in self._resized]
            views[:, 0] = (crops >> np.uint64(32)) % np.uint64(spare[0])
            views[:, 1] = (crops & np.uint64(2**32 - 1)) % np.uint64(spare[1])
        if self._flips:
            views[:, 2] = flips >> np.uint64(63)
        return torch.from_numpy(views)

    def _enlarged(self, images: Tensor) -> Tensor:
        """Resized where the preset resizes; uint16 as int32, which torch can index."""
        x = images if images.dtype == torch.uint8 else images.to(torch.int32)
        return x if self._side is None else resized(x, self._side)


def unsuited(augment: Augment, stored: tuple[int, int, int], shape: ImageShape) -> str | None:
    """Why ``stored`` images [C, H, W] cannot become those of ``shape``; None where they can."""
    preset = PRESETS[augment]
    found = "x".join(map(str, stored))
    fits = stored == shape.chw or (stored[0] == shape.channels and shape.height == shape.width)
    if preset.exact:
        fits = stored == shape.chw
    elif preset.zoom is None:
        fits = fits and min(stored[1:]) >= shape.height
    if fits:
        return None
    channels, height, width = stored
    size = f"image_size={height} channels={channels}" if height == width else "another image_size"
    means = "" if preset.exact else f" by augment={augment}"
    return f"holds images {found}, the job wants {shape}{means}; pack it again, or set {size}"


def centre(side: int, size: int) -> int:
    """First px of the ``size`` in the middle of ``side``; halves go to the even one."""
    return round((side - size) / 2)


def resized(images: Tensor, side: int) -> Tensor:
    """Integer images [B, C, H, W] bilinearly at ``side`` x ``side``, antialiased when they shrink.

    Equal bit for bit to what Pillow makes of 8-bit images no taller than wide: along rows first,
    rounded to integers, then along columns (``tests/unit/test_transforms.py``).
    """
    # The largest sum is the largest value times 2^22: 30 bits for 8, 38 for 16.
    exact = torch.int32 if images.dtype == torch.uint8 else torch.int64
    x = _along(images.to(exact), 3, side)
    return _along(x, 2, side).to(images.dtype)


def _along(x: Tensor, axis: int, side: int) -> Tensor:
    if x.shape[axis] == side:
        return x
    index, weight = (part.to(x.device) for part in _taps(x.shape[axis], side))
    shape = [1, 1, 1, 1]
    shape[axis] = side
    total = torch.full((), 1 << (BITS - 1), dtype=x.dtype, device=x.device)
    for tap in range(index.shape[1]):
        part = x.index_select(axis, index[:, tap])
        total = total + part * weight[:, tap].to(x.dtype).reshape(shape)
    return total >> BITS


@cache
def _taps(size: int, side: int) -> tuple[Tensor, Tensor]:
    """Which pixels each of ``side`` results weighs, and how much, in 2^-22: int64 [side, K]."""
    step = size / side
    reach = max(step, 1.0)
    index = np.zeros((side, 2 * math.ceil(reach) + 1), np.int64)
    weight = np.zeros(index.shape, np.float64)
    for n in range(side):
        middle = (n + 0.5) * step
        first = max(int(middle - reach + 0.5), 0)
        taken = np.arange(first, min(int(middle + reach + 0.5), size))
        hat = np.maximum(1 - np.abs(taken + 0.5 - middle) / reach, 0)
        index[n, : len(taken)] = taken
        weight[n, : len(taken)] = hat / hat.sum()
    rounded = np.floor(weight * 2**BITS + 0.5).astype(np.int64)
    used = rounded.any(axis=0)
    return torch.from_numpy(index[:, used]), torch.from_numpy(rounded[:, used])


def _typed(x: Tensor, dtype: torch.dtype) -> Tensor:
    return x if x.dtype == dtype else x.to(dtype)


def normalise(images: Tensor) -> Tensor:
    """float32 in [-1, 1] from uint8 or uint16 images, on the device they are on."""
    full = 255.0 if images.dtype == torch.uint8 else 65535.0
    return images.to(torch.float32) * (2.0 / full) - 1.0


def eight_bit(images: Image) -> NDArray[np.uint8]:
    """uint8 in host memory: clamped to [-1, 1], rounded to nearest."""
    scaled = torch.round((images.clamp(-1, 1) + 1) * 127.5)
    return np.asarray(scaled.to(torch.uint8).cpu().numpy())
