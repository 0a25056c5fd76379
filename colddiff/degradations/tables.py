"""Constants of an operator, computed once in float64 and cached per device; working dtypes."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, TypeAlias

import torch

if TYPE_CHECKING:
    from torch import Tensor

Make: TypeAlias = "Callable[[], dict[str, Tensor]]"


class Tables:
    """The tables of one D, by name."""

    def __init__(self) -> None:
        self._float64: dict[str, Tensor] | None = None
        self._held: dict[tuple[torch.device, torch.dtype], dict[str, Tensor]] = {}

    def exact(self, make: Make) -> dict[str, Tensor]:
        """In float64; ``make`` is called once."""
        if self._float64 is None:
            # Tensors made in inference mode could not be used in a later backward pass through D.
            with torch.inference_mode(False):
                self._float64 = make()
        return self._float64

    def like(self, x: Tensor, make: Make) -> dict[str, Tensor]:
        """On the device and in the dtype of ``x``; integers stay integers."""
        key = (x.device, x.dtype)
        if key not in self._held:
            exact = self.exact(make)
            with torch.inference_mode(False):
                self._held[key] = {
                    name: moved(table, x.device, x.dtype) for name, table in exact.items()
                }
        return self._held[key]

    def release(self) -> None:
        """Drops all cached tables but the exact ones."""
        self._held.clear()


def working_dtype(dtype: torch.dtype) -> torch.dtype:
    """The dtype D computes in for images of ``dtype``: float64 for float64, else float32."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def in_8_bit(x: Tensor) -> Tensor:
    """x rounded to the nearest of the 256 levels of [-1, 1], not clipped."""
    levels = torch.round((x.to(working_dtype(x.dtype)) + 1) * 127.5)
    return (2 * (levels / 255) - 1).to(x.dtype)


def without_autocast(device_type: str) -> AbstractContextManager[object]:
    """Disables autocast, which would run A_t x in bfloat16: Algorithm 2 takes small differences."""
    if not torch.amp.is_autocast_available(device_type):
        return nullcontext()
    return torch.autocast(device_type, enabled=False)


def moved(tensor: Tensor, device: torch.device, dtype: torch.dtype) -> Tensor:
    """``tensor`` on ``device``, in ``dtype`` if it is floating."""
    return tensor.to(device, dtype if tensor.is_floating_point() else None, non_blocking=True)
