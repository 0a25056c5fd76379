"""The images of one file as they are stored, and their conversion to pixels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from colddiff.data.pil_images import MAX_PIXELS, Pixels
from colddiff.errors import DataError, SpecError

MAX_FRAMES = 10**6
MAX_DEFLATE = 1032
"""Times that deflate, the compression of gzip and zip, makes data smaller at most."""
MAX_STACK_BYTES = 16 * 2**30
"""Largest file of many images, decoded; a small file can claim any size."""


@dataclass(frozen=True, slots=True)
class Frames:
    """Images of one size and what their values mean.

    ``values``: [N, H, W] or [N, H, W, 3], integers or floating.
    """

    values: NDArray[Any]
    largest: int | None
    """The value of white where integers are grey levels from 0; None for physical values, such as
    Hounsfield units, of which `--range` says what is black and white."""
    physical: bool = False
    """Whether a `--range` is a range of these values, and not of what they stand for."""
    inverted: bool = False
    """Whether small values are bright."""
    transparent: NDArray[np.bool_] | None = None
    """Of which images an alpha was dropped that is not opaque everywhere, [N]; None: of none."""


class RangeNeededError(SpecError):
    """Physical values, of which no `--range` says what is black and white.

    ``dtype``: of the values.
    """

    def __init__(self, where: str, values: NDArray[Any]) -> None:
        self.dtype = values.dtype
        low, high = values.min(), values.max()
        super().__init__(
            [
                (
                    "range",
                    f"is needed for {where}, which holds {values.dtype} values, {low:g} to "
                    f"{high:g} in this image: give the values of black and of white in all "
                    f"images, as in --range={low:g},{high:g}",
                )
            ]
        )

    def of_file(self, name: str) -> str:
        """The same in one line about the file ``name``, to stand among those of other images."""
        return f"{name}: holds {self.dtype} values; --range says which are black and white"


@dataclass(frozen=True, slots=True)
class Levels:
    """How values become pixels: bit depth, and the physical values of black and white."""

    bits: int = 8
    range: tuple[float, float] | None = None

    def pixels(self, frames: Frames, number: int, where: str) -> Pixels:
        """Image ``number`` as pixels [H, W, C].

        Grey levels keep their depth: up to 255 they become 8 bit, else 16 bit, scaled so that the
        largest is white. Physical values are mapped from ``range``, and clipped to it.

        Raises DataError for NaN and 16-bit colour, RangeNeededError for physical values without a
        range.
        """
        values = np.asarray(frames.values[number])
        if values.dtype.kind == "f" and not np.isfinite(values).all():
            bad = int((~np.isfinite(values)).sum())
            raise DataError(f"{where}: {bad} of {values.size} values are NaN or infinite")
        if frames.largest is None or (frames.physical and self.range is not None):
            found = self._mapped(values, where)
        else:
            found = _scaled(values, frames.largest)
        if frames.inverted:
            found = np.iinfo(found.dtype).max - found
        if found.ndim == 2:
            return found[:, :, None]
        if found.dtype == np.uint16:
            raise DataError(
                f"{where}: more than 8 bits per channel are supported for grey images only; "
                "convert it to 8 bit per channel"
            )
        return found

    def _mapped(self, values: NDArray[Any], where: str) -> Pixels:
        if self.range is None:
            raise RangeNeededError(where, values)
        low, high = self.range
        white = 2**self.bits - 1
        scaled = (values.astype(np.float64) - low) * (white / (high - low))
        dtype = np.uint8 if self.bits == 8 else np.uint16
        mapped: Pixels = np.rint(np.clip(scaled, 0, white)).astype(dtype)
        return mapped


def _scaled(values: NDArray[Any], largest: int) -> Pixels:
    white = 255 if largest <= 255 else 65535
    if largest != white:
        values = np.rint(values.astype(np.float64).clip(0, largest) * (white / largest))
    return values.astype(np.uint8) if white == 255 else values.astype(np.uint16)


def said(error: Exception) -> str:
    """What a library says about a damaged file, in one line."""
    return " ".join(str(error).split())[:200] or type(error).__name__


def whole_levels(dtype: np.dtype[Any]) -> int | None:
    """``Frames.largest`` of an array of this type; None for signed, wide and floating ones."""
    return {"b1": 1, "u1": 255, "u2": 65535}.get(dtype.str[1:])


def refuse_size(height: int, width: int, count: int, itemsize: int, where: str) -> None:
    """Raises DataError for no images, empty ones, or more than can be meant."""
    if min(count, height, width) < 0:
        raise DataError(f"{where}: damaged: its shape is {count} x {height} x {width}")
    if not count or not height or not width:
        raise DataError(f"{where}: holds no images: its shape is {count} x {height} x {width}")
    if height * width > MAX_PIXELS:
        raise DataError(f"{where}: {width}x{height} is more than the limit of {MAX_PIXELS} pixels")
    if count > MAX_FRAMES or count * height * width * itemsize > MAX_STACK_BYTES:
        raise DataError(
            f"{where}: {count} images of {width}x{height} are more than the limits of {MAX_FRAMES} "
            f"images and {MAX_STACK_BYTES // 2**30} GiB; split the file"
        )


def refuse_cut(size: int, needed: int, where: str) -> None:
    """Raises DataError where a file, or what it unpacks to at most, is smaller than its header
    says; both in bytes. Nothing that is claimed is read first."""
    if size < needed:
        raise DataError(f"{where}: has {size} bytes, its header says {needed}; the file is cut off")
