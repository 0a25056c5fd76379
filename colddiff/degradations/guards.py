"""Argument checks of a degradation; they raise SpecError.

Severities and values are only checked if they are in host memory, never by a device sync.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from colddiff.degradations.tables import working_dtype
from colddiff.errors import SpecError
from colddiff.types import Image, ImageShape, Severity

if TYPE_CHECKING:
    from torch import Tensor


def check_images(kind: str, shape: ImageShape, num_timesteps: int, x0: Image, t: Severity) -> None:
    """Raises SpecError if x0 are not images of ``shape``, or t not a severity for each of them."""
    for name, value in (("images", x0), ("t", t)):
        if not _is_tensor(value):
            of = type(value).__name__
            if (name, of) == ("t", "int"):
                of = f"{of}; pass one for each image, torch.full((len(x0),), {value})"
            raise SpecError(f"{kind}: {name} must be a torch tensor, got {of}")
    if x0.ndim != 4 or tuple(x0.shape[1:]) != shape.chw:
        raise SpecError(
            f"{kind}: built for images [B, {', '.join(map(str, shape.chw))}], got {list(x0.shape)}"
        )
    if not x0.is_floating_point():
        raise SpecError(
            f"{kind}: images must be floating in [-1, 1], got {x0.dtype}; "
            "divide 8-bit values by 127.5 and subtract 1"
        )
    if t.dtype != torch.int64 or t.shape != (len(x0),):
        raise SpecError(f"{kind}: t must be int64 [{len(x0)}], got {t.dtype} {list(t.shape)}")
    if t.device.type == "cpu" and len(t):
        low, high = int(t.min()), int(t.max())
        if low < 0 or high > num_timesteps:
            outside = low if low < 0 else high
            raise SpecError(f"{kind}: severity {outside} is outside 0..{num_timesteps}")
    if x0.device.type == "cpu" and not all_finite(x0):
        raise SpecError(f"{kind}: the images hold NaN or inf")


def check_values(kind: str, name: str, value: Tensor) -> None:
    """Raises SpecError if ``omega[name]`` holds NaN or inf."""
    if not all_finite(value):
        raise SpecError(f"{kind}: omega[{name!r}] holds NaN or inf")


def all_finite(values: Tensor) -> bool:
    """Whether no value is NaN or inf."""
    # NaN and inf propagate through a sum, which costs a thirtieth of checking each value; a sum
    # that overflows proves nothing, so then each value is checked.
    total = values.sum(dtype=working_dtype(values.dtype))
    return bool(torch.isfinite(total)) or bool(torch.isfinite(values).all())


def _is_tensor(value: object) -> bool:
    return isinstance(value, torch.Tensor)
