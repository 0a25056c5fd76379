"""Transforms of stored images into training and test images: resize, crop, flip (PAPER 2.2).

They run on whole batches, on the device, rather than when a set is packed, so that one packed set
serves every experiment of the paper and random crops are taken from the stored image. Input and
output are integers. A training image's crop and flip are functions of (seed, position).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Literal, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray

from colddiff.errors import DataError
from colddiff.rng import words
from colddiff.types import Image, ImageShape

if TYPE_CHECKING:
    from torch import Tensor

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
"""Fractional bits of a resizing weight; the same as Pillow's, whose results are matched exactly."""


@dataclass(frozen=True, slots=True)
class Preset:
    """One row of PAPER 2.2. Test images get the same resize and a centre crop."""

    zoom: float | None = None
    """Resize to a square of ``zoom`` times the final side; None: no resize."""
    pad: int = 0
    """Black border added to a training image before cropping, px."""
    random_crop: bool = False
    flip: bool = False
    exact: bool = False
    """Stored images must already have the final size."""


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
    """The preset ``augment`` for ``stored`` images [C, H, W], giving images of ``shape``.

    Raises DataError if stored images of that shape cannot be transformed to ``shape``.
    """

    def __init__(self, augment: Augment, stored: tuple[int, int, int], shape: ImageShape) -> None:
        problem = transform_problem(augment, stored, shape)
        if problem is not None:
            raise DataError(problem)
        self.augment = augment
        self._preset = PRESETS[augment]
        self._stored = stored[1:]
        self._size = shape.height
        side = resized_side(augment, self._size)
        self._side = None if side is None or self._stored == (side, side) else side
        self._resized = self._stored if side is None else (side, side)

    @property
    def changes_test_images(self) -> bool:
        """False if test images are the stored images, unchanged."""
        return self._side is not None or self._resized != (self._size, self._size)

    def draw_crops(self, seed: int, positions: NDArray[np.int64]) -> Tensor:
        """Draw training crops, int64 [B, 3]: first row, first column, and whether to flip.

        A function of (seed, position) alone; ``positions`` must be consecutive.
        """
        count, first = len(positions), int(positions[0])
        places = words(seed, "train/crop", first, count) if self._crops else np.zeros(0)
        flips = words(seed, "train/flip", first, count) if self._flips else np.zeros(0)
        return self._crops_of(count, places.astype(np.uint64), flips.astype(np.uint64))

    def draw_crops_from(self, rng: Sequence[np.random.Generator]) -> Tensor:
        """Like ``draw_crops``, but row i is drawn from generator i."""
        drawn = [
            [g.integers(2**64, dtype=np.uint64) for g in rng] if wanted else []
            for wanted in (self._crops, self._flips)
        ]
        return self._crops_of(len(rng), *(np.array(part, np.uint64) for part in drawn))

    def train(self, images: Tensor, crops: Tensor) -> Tensor:
        """Training images [B, C, n, n] from stored ones and ``crops``; keeps dtype and device."""
        if not (self._crops or self._flips):
            return self.test(images)
        x = self._enlarged(images)
        pad = self._preset.pad
        if pad:
            x = torch.nn.functional.pad(x, (pad, pad, pad, pad))
        crops = crops.to(x.device, non_blocking=True)
        along = torch.arange(self._size, device=x.device)
        top, left, flipped = (crops[:, n, None] for n in range(3))
        rows = top + along
        columns = left + torch.where(flipped > 0, self._size - 1 - along, along)
        batch, channels, _, width = x.shape
        x = x.gather(2, rows[:, None, :, None].expand(batch, channels, self._size, width))
        x = x.gather(3, columns[:, None, None, :].expand(batch, channels, self._size, self._size))
        return _typed(x, images.dtype)

    def test(self, images: Tensor) -> Tensor:
        """Test images [B, C, n, n] from stored ones: resize and centre crop, nothing random."""
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

    def _crops_of(
        self, count: int, places: NDArray[np.uint64], flips: NDArray[np.uint64]
    ) -> Tensor:
        """Crops from one random word for each place and flip."""
        crops = np.zeros((count, 3), np.int64)
        if self._crops:
            spare = [side + 2 * self._preset.pad - self._size + 1 for side in self._resized]
            crops[:, 0] = (places >> np.uint64(32)) % np.uint64(spare[0])
            crops[:, 1] = (places & np.uint64(2**32 - 1)) % np.uint64(spare[1])
        if self._flips:
            crops[:, 2] = flips >> np.uint64(63)
        return torch.from_numpy(crops)

    def _enlarged(self, images: Tensor) -> Tensor:
        """Resized if the preset resizes; uint16 becomes int32, which torch can index."""
        x = images if images.dtype == torch.uint8 else images.to(torch.int32)
        return x if self._side is None else resized(x, self._side)


def resized_side(augment: Augment, size: int) -> int | None:
    """The side that stored images are resized to, for images of ``size`` px; None: not resized.

    >>> resized_side("paper/crop112", 32), resized_side("none", 32)
    (35, None)
    """
    zoom = PRESETS[augment].zoom
    return None if zoom is None else int(zoom * size)


def transform_problem(
    augment: Augment, stored: tuple[int, int, int], shape: ImageShape
) -> str | None:
    """Why ``stored`` images [C, H, W] cannot be transformed to ``shape``; None if they can."""
    preset = PRESETS[augment]
    found = "x".join(map(str, stored))
    possible = stored == shape.chw or (stored[0] == shape.channels and shape.height == shape.width)
    if preset.exact:
        possible = stored == shape.chw
    elif preset.zoom is None:
        possible = possible and min(stored[1:]) >= shape.height
    if possible:
        return None
    channels, height, width = stored
    size = f"image_size={height} channels={channels}" if height == width else "another image_size"
    means = "" if preset.exact else f" with augment={augment}"
    return f"has images {found}, the job needs {shape}{means}; pack it again, or set {size}"


def centre(side: int, size: int) -> int:
    """First px of a centre crop of ``size`` out of ``side``; halves round to even."""
    return round((side - size) / 2)


def resized(images: Tensor, side: int) -> Tensor:
    """Resize integer images [B, C, H, W] bilinearly to ``side`` x ``side``, with antialiasing.

    Bit-identical to Pillow for 8-bit images no taller than wide: rows first, rounded to integers,
    then columns (``tests/unit/test_transforms.py``).
    """
    # The largest sum is the largest value times 2^22: 30 bits for 8-bit images, 38 for 16-bit.
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
    """Source pixels of each of ``side`` results, and their weights in units of 2^-22: [side, K]."""
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
    """Convert uint8 or uint16 images to float32 in [-1, 1], on their device."""
    full = 255.0 if images.dtype == torch.uint8 else 65535.0
    return images.to(torch.float32) * (2.0 / full) - 1.0


def eight_bit(images: Image) -> NDArray[np.uint8]:
    """Convert images in [-1, 1] to uint8 in host memory: clamp, then round to nearest."""
    scaled = torch.round((images.clamp(-1, 1) + 1) * 127.5)
    return np.asarray(scaled.to(torch.uint8).cpu().numpy())
