"""A sampler's trajectory from x_T to x_0, kept in 8 bit for a few images."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from colddiff.transforms import eight_bit
from colddiff.types import Image

MAX_FRAMES = 60


@dataclass(frozen=True, slots=True)
class Trajectory:
    """States x_t and estimates R(x_t, t) of k images at falling severities, the last one 0.

    ``severities`` [S]; ``states`` and ``estimates`` uint8 [S, k, C, H, W]. At severity 0 both are
    x_0, the result. ``label`` is the sampler's.
    """

    severities: tuple[int, ...]
    states: NDArray[np.uint8]
    estimates: NDArray[np.uint8]
    label: str


class Recorder:
    """Records about 60 evenly spread severities at most, of the first ``keep`` images."""

    def __init__(self, num_timesteps: int, keep: int, label: str) -> None:
        self._spacing = max(1.0, num_timesteps / MAX_FRAMES)
        self._keep, self._label = keep, label
        self._severities: list[int] = []
        self._states: list[NDArray[np.uint8]] = []
        self._estimates: list[NDArray[np.uint8]] = []

    def record(self, t: int, x_t: Image, x0_hat: Image) -> None:
        """Records a state and its estimate, [B, C, H, W] in [-1, 1], unless too near the last."""
        near = bool(self._severities) and self._severities[-1] - t < self._spacing
        if self._keep == 0 or (near and t > 0):
            return
        self._severities.append(t)
        self._states.append(eight_bit(x_t[: self._keep]))
        self._estimates.append(eight_bit(x0_hat[: self._keep]))

    def trajectory(self) -> Trajectory | None:
        """The recorded trajectory; None if nothing was recorded."""
        if not self._severities:
            return None
        return Trajectory(
            tuple(self._severities),
            np.stack(self._states),
            np.stack(self._estimates),
            self._label,
        )
