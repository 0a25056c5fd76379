"""The randomness of D (omega): drawing, checking, and moving it to the images' device."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from colddiff.degradations.tables import moved, working_dtype
from colddiff.errors import SpecError
from colddiff.rng import Rng, rows
from colddiff.types import Image, Omega

if TYPE_CHECKING:
    from torch import Tensor

    from colddiff.degradations.base import Degradation

DrawImages = Callable[[Sequence[np.random.Generator]], Image]
"""Images of another set: one for each generator, a function of that generator alone."""


def draw_omega(
    D: Degradation[Any], batch: int, rng: Rng, images: DrawImages | None
) -> dict[str, Tensor]:
    """Implements ``D.draw``; raises SpecError."""
    if not D.omega_names:
        return {}
    if D.omega_images and images is None:
        raise SpecError(
            f"{D.spec.kind}: omega {', '.join(D.omega_images)} holds images of a second set and "
            f"cannot be drawn; pass omega={{{D.omega_images[0]!r}: images [B, "
            f"{', '.join(map(str, D.shape.chw))}]}}"
        )
    generators = rows(rng, batch)
    from_images = {} if images is None else {name: images(generators) for name in D.omega_images}
    own = [name for name in D.omega_names if name not in from_images]
    drawn = [D._draw_row(generator) for generator in generators] if own else []
    stacked = {name: np.stack([np.asarray(row[name]) for row in drawn]) for name in own}
    return from_images | {name: torch.from_numpy(values) for name, values in stacked.items()}


def placed_omega(D: Degradation[Any], omega: Omega, x0: Image) -> dict[str, Tensor]:
    """Implements ``D.place_omega``; values are only checked if they are in host memory."""
    for name in D.omega_names:
        _check_shape(D, omega, name, len(x0))
        if omega[name].device.type == "cpu":
            D._check_omega(name, omega[name])
    dtype = working_dtype(x0.dtype)
    return {name: moved(omega[name], x0.device, dtype) for name in D.omega_names}


def _check_shape(D: Degradation[Any], omega: Omega, name: str, batch: int) -> None:
    kind = D.spec.kind
    if name not in omega:
        raise SpecError(
            f"{kind}: omega has no {name!r}; draw it with D.draw(batch, rng=RNG), where RNG is a "
            "torch.Generator, a numpy Generator, or a list of numpy's, one for each image"
        )
    shape = D.omega_shape(name)
    expected = [batch, *(omega[name].shape[1:] if shape is None else shape)]
    if list(omega[name].shape) != expected:
        raise SpecError(
            f"{kind}: omega[{name!r}] must be {expected} for {batch} images, "
            f"got {list(omega[name].shape)}"
        )
