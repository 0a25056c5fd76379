"""Severity profile: how far D(x0, t) is from x0 at each severity, measured on images."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from colddiff.degradations import Degradation
from colddiff.spec import Unit
from colddiff.types import Image, Omega

CHUNK = 32
DEAD = 1e-5


@dataclass(frozen=True, slots=True)
class SeverityProfile:
    """Root-mean-square distances of D(x0, t) over all severities, on the scale [0, 1]."""

    rmse: NDArray[np.float64]
    """[T + 1]: distance of D(x0, t) from x0, over all pixels of all images (the paper's RMSE)."""
    steps: NDArray[np.float64]
    """[T]: entry i is the distance of D(x0, i + 1) from D(x0, i)."""
    num_images: int

    @property
    def num_timesteps(self) -> int:
        """T."""
        return len(self.steps)

    @property
    def dead(self) -> list[int]:
        """Severities t that differ from t - 1 by less than 1e-5."""
        return [int(i) + 1 for i in np.flatnonzero(~(self.steps >= DEAD))]

    @property
    def largest_step(self) -> int:
        """The severity t at the end of the largest step."""
        return int(np.argmax(self.steps)) + 1

    @property
    def roughness(self) -> float:
        """Largest step over mean step: 1 if all steps are equal, inf if nothing changes."""
        mean = float(self.steps.mean())
        return float(self.steps.max()) / mean if mean > 0 else math.inf

    def psnr(self, t: int) -> float:
        """-20 log10(RMSE at t) in dB; inf for equal images."""
        return -20 * math.log10(self.rmse[t]) if self.rmse[t] > 0 else math.inf


def measure_severity_profile(D: Degradation[Any], x0: Image, omega: Omega) -> SeverityProfile:
    """Measure ``D`` on images ``x0`` [N, C, H, W], each with its own row of ``omega``.

    Costs N (T + 1) applications of D, ``CHUNK`` severities of one image at a time.
    """
    T = D.num_timesteps
    away, step = np.zeros(T + 1), np.zeros(T)
    for i, image in enumerate(x0):
        own = {name: value[i : i + 1] for name, value in omega.items()}
        last = image.double()
        for start in range(0, T + 1, CHUNK):
            t = torch.arange(start, min(start + CHUNK, T + 1))
            x = _path(D, image, t, own).double()
            away[t.numpy()] += _mean_square(x - image.double())
            moved = _mean_square(x - torch.cat([last[None], x[:-1]]))
            step[max(start, 1) - 1 : start + len(t) - 1] += moved[start == 0 :]
            last = x[-1]
    scale = 0.5 / math.sqrt(max(len(x0), 1))  # from [-1, 1] to [0, 1], from sums to means
    return SeverityProfile(np.sqrt(away) * scale, np.sqrt(step) * scale, len(x0))


def labelled_parameters(D: Degradation[Any]) -> dict[str, NDArray[np.float64]]:
    """The physical parameters of ``D.parameters``, [T] each, by name and unit: ``sigma (px)``."""
    units = {
        name: mark.name
        for name, field in type(D.spec).model_fields.items()
        for mark in field.metadata
        if isinstance(mark, Unit)
    }
    units |= D.parameter_units
    return {
        f"{name} ({units[name]})" if units.get(name) else name: values
        for name, values in D.parameters().items()
    }


def _path(D: Degradation[Any], image: Image, t: torch.Tensor, own: Omega) -> Image:
    along = {name: value.expand(len(t), *value.shape[1:]) for name, value in own.items()}
    return D.degrade(image.expand(len(t), -1, -1, -1), t, along)


def _mean_square(difference: torch.Tensor) -> NDArray[np.float64]:
    return np.asarray(difference.square().mean(dim=(1, 2, 3)).cpu().numpy())
