"""A sampler's trajectory from x_T to x_0, kept in 8 bit for a few images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from colddiff.transforms import eight_bit
from colddiff.types import Image

MAX_FRAMES = 61
"""Severities of an animation, at most."""
MAX_SHOWN = 21
"""Severities between which a page moves, at most; they are among those of an animation."""


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


def evenly(severities: Sequence[int], most: int) -> list[int]:
    """At most ``most`` of ``severities``, evenly spaced, with the first and the last."""
    last = len(severities) - 1
    chosen = np.linspace(0, last, min(last + 1, max(most, 2))).round().astype(np.int64)
    return [severities[i] for i in np.unique(chosen)]


class Recorder:
    """Records the states at some ``severities``, of the first ``keep`` images."""

    def __init__(self, severities: Sequence[int], keep: int, label: str) -> None:
        self._wanted = frozenset(severities)
        self._keep, self._label = keep, label
        self._severities: list[int] = []
        self._states: list[NDArray[np.uint8]] = []
        self._estimates: list[NDArray[np.uint8]] = []

    def record(self, t: int, x_t: Image, x0_hat: Image) -> None:
        """Records a state and its estimate, [B, C, H, W] in [-1, 1], if t is chosen."""
        if self._keep == 0 or t not in self._wanted:
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
