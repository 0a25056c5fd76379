"""Degradations that are one linear map per axis and severity: D(x, t) = A_t x B_t^T."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable
from typing import TYPE_CHECKING, final

import numpy as np
import torch

from colddiff.degradations.base import Degradation
from colddiff.degradations.spec import SpecT
from colddiff.schedules import FloatTable
from colddiff.types import Image, Omega, Severity

if TYPE_CHECKING:
    from torch import Tensor


class Separable(Degradation[SpecT]):
    """A table of T + 1 matrices for each side; any mix of severities is two batched products.

    Subclasses provide the products of their steps' 1-D operators; one is applied to all rows (A_t)
    and one to all columns (B_t).
    """

    @abstractmethod
    def _products(self, side: int) -> FloatTable:
        """The operators of severities 0..T for ``side`` px, float64 [T + 1, side, side]."""

    @final
    def _make_tables(self) -> dict[str, Tensor]:
        sides = {self.shape.height, self.shape.width}
        return {str(side): torch.from_numpy(self._products(side)) for side in sides}

    @final
    def _degrade(self, x0: Image, t: Severity, omega: Omega) -> Image:
        height, width = self.shape.height, self.shape.width
        tables = self._tables(x0)
        rows = tables[str(height)][t]
        columns = rows if height == width else tables[str(width)][t]
        # One product over W for all channels at once, then one over H: no C-fold copies.
        across = torch.bmm(x0.reshape(-1, x0.shape[1] * height, width), columns.mT)
        return torch.matmul(rows.unsqueeze(1), across.view(x0.shape))


def chained(steps: Iterable[FloatTable], num_timesteps: int, side: int) -> FloatTable:
    """Products step_t ... step_1 for t = 0..T, float64 [T + 1, side, side]; first the identity."""
    products = np.empty((num_timesteps + 1, side, side))
    products[0] = np.eye(side)
    for t, step in enumerate(steps):
        np.matmul(step, products[t], out=products[t + 1])
    return products
