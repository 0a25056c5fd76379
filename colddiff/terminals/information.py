"""What D(x, T) still says about x: how much a linear restorer gains over what a terminal draws."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from colddiff.degradations import Degradation
from colddiff.terminal import Gmm, TerminalSpec
from colddiff.types import Image, Omega

if TYPE_CHECKING:
    from torch import Tensor

HELD_OUT = 3
"""One of so many images is held out: restored, and not fitted to."""

ROUNDING = (2 / 255) ** 2 / 12
"""Variance of rounding to 8 bit in [-1, 1]: what differs by less than that is not told apart."""

RIDGES = tuple(10.0**power for power in range(9))
"""Penalties that are tried, as multiples of the rounding's."""


def held_information(D: Degradation[Any], terminal: TerminalSpec, x0: Image, omega: Omega) -> float:
    """Part of the variance of x, 0..1, that a linear restorer recovers from D(x, T).

    Ridge regression from D(x0, T) to x0, fitted to two thirds of the images and scored on the
    others; 0 is the error of the mean image. Where ``terminal`` is a mixture of block means, it
    draws those: 0 is then the error of the best linear restorer from the block means alone.
    """
    x_T = D.degrade(x0, torch.full((len(x0),), D.num_timesteps), omega)
    target = x0.flatten(1).double()
    if isinstance(terminal, Gmm):
        target = _residual(terminal.features(D, x0), target)
    left = _residual(x_T.flatten(1).double(), target)
    _, held_out = _parts(len(x0))
    before = (target - target[~held_out].mean(dim=0))[held_out].square().mean()
    after = left[held_out].square().mean()
    return 0.0 if not before else max(0.0, 1 - float(after / before))


def _parts(count: int) -> tuple[Tensor, Tensor]:
    """Which of ``count`` images are fitted to, and which are held out: bool [count] each."""
    held_out = torch.arange(count) % HELD_OUT == HELD_OUT - 1
    return ~held_out, held_out


def _residual(x: Tensor, y: Tensor) -> Tensor:
    """What ridge regression from rows of ``x`` [N, D] leaves of ``y`` [N, E], float64 [N, E].

    Fitted to one part of the rows. In its dual form, whose cost grows with N and not with D^2; the
    penalty is chosen by generalised cross-validation on the same part.
    """
    fitted, _ = _parts(len(x))
    x, y = x - x[fitted].mean(dim=0), y - y[fitted].mean(dim=0)
    x_fit, y_fit = x[fitted], y[fitted]
    n = len(x_fit)
    values, vectors = torch.linalg.eigh(x_fit @ x_fit.T)
    values = values.clamp(min=0.0)
    turned = vectors.T @ y_fit
    energy = turned.square().sum(dim=1)

    def score(ridge: float) -> float:
        left = ridge / (values + ridge)
        return float((left.square() * energy).sum() / left.mean().square())

    best = min((n * ROUNDING * step for step in RIDGES), key=score)
    weights = vectors @ (turned / (values + best)[:, None])
    left: Tensor = y - (x @ x_fit.T) @ weights
    return left
