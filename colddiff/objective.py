"""The training objective, equation 1 of the paper: min over R of E ||R(D(x0, t), t) - x0||."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from colddiff.degradations import Degradation
from colddiff.degradations.base import DrawImages
from colddiff.rng import streams, words
from colddiff.types import Image, Omega, Severity

Norm = Literal["l1", "l2"]


def draw_severities(seed: int, positions: NDArray[np.int64], num_timesteps: int) -> Severity:
    """Draw t uniformly from 1..T, int64 [B], as a function of (seed, position) alone.

    ``positions`` must be consecutive: the indices of these images in the whole run.
    """
    drawn = words(seed, "train/severity", int(positions[0]), len(positions))
    return torch.from_numpy((drawn % np.uint64(num_timesteps)).astype(np.int64) + 1)


def draw_omega(
    seed: int,
    positions: NDArray[np.int64],
    D: Degradation[Any],
    images: DrawImages | None = None,
) -> dict[str, Tensor]:
    """Draw omega of each image, as a function of (seed, position) alone.

    ``images`` draws from the second image set, if D mixes one in.
    """
    if not D.omega_names:
        return {}
    rng = streams(seed, "train/omega", [int(position) for position in positions])
    return D.draw(len(positions), rng=rng, images=images)


def restoration_loss(
    restore: Callable[[Image, Severity], Image],
    D: Degradation[Any],
    x0: Image,
    t: Severity,
    omega: Omega,
    norm: Norm = "l1",
) -> Tensor:
    """Loss of each image, float32 [B]: mean over pixels of |R(D(x0, t), t) - x0|, or its square.

    R's input is ``D.observe``: D(x0, t), quantised to 8 bits if the spec says so.
    """
    with torch.no_grad():
        x_t = D.observe(x0, t, omega)
    error = restore(x_t, t).float() - x0.float()
    return (error.abs() if norm == "l1" else error.square()).mean(dim=(1, 2, 3))
