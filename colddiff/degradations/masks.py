"""Products of peak-normalised Gaussian masks, prod_i (1 - exp(-d^2 / 2 sigma_i^2)) (PAPER 3.2)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from colddiff.schedules import FloatTable
from colddiff.types import Severity

if TYPE_CHECKING:
    from torch import Tensor


def cumulative_masks(sigmas: FloatTable, rows: int, columns: int) -> FloatTable:
    """The products of the first t = 0..T masks, float64 [T + 1, rows, columns].

    Entry [t, r, c] is for a pixel r rows and c columns away from the masks' centre: one quadrant
    is enough for every centre on a whole pixel.
    """
    squared = np.arange(rows)[:, None] ** 2 + np.arange(columns)[None, :] ** 2
    distance = np.sqrt(squared.astype(np.float64))
    products = np.ones((len(sigmas) + 1, rows, columns))
    for i, sigma in enumerate(sigmas):
        with np.errstate(over="ignore"):
            mask = -np.expm1(-0.5 * (distance / sigma) ** 2)
        np.multiply(products[i], mask, out=products[i + 1])
    return products


def masks_at(table: Tensor, t: Severity, centre: Tensor, height: int, width: int) -> Tensor:
    """The product of t[b] masks around the pixel centre[b] for each image b, [B, 1, height, width].

    ``centre``: int64 [B, 2] or [1, 2], row and column.
    """
    rows = (torch.arange(height, device=t.device) - centre[:, :1]).abs()
    columns = (torch.arange(width, device=t.device) - centre[:, 1:]).abs()
    return table[t[:, None, None], rows[:, :, None], columns[:, None, :]].unsqueeze(1)


def middle(side: int) -> int:
    """The centre pixel of an axis: side / 2 - 1 for the even sides of PAPER 3.2, 63 of 128."""
    return (side - 1) // 2
