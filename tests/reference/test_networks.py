"""The networks against independent implementations of the paper's description, in float64."""

from __future__ import annotations

import pytest
import torch

from colddiff.restorers import build_restorer
from colddiff.types import ImageShape
from tests.reference import convnext_unet


@pytest.mark.parametrize(
    ("channels", "dim", "mults", "side"),
    # One level; few pixels, whose attention is by image; many, whose attention is by pixel.
    [(1, 16, [1], 8), (3, 8, [1, 2, 4], 16), (3, 64, [1, 2], 8), (1, 8, [2, 1], 64)],
)
def test_convnext_unet(channels: int, dim: int, mults: list[int], side: int) -> None:
    torch.manual_seed(0)
    spec = {"kind": "convnext_unet", "dim": dim, "dim_mults": mults}
    R = build_restorer(spec, ImageShape(channels, side, side)).double()
    with torch.no_grad():
        # As it begins, norms neither scale nor shift, and that would not be seen.
        for parameter in R.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
        x = torch.rand(3, channels, side, side, dtype=torch.float64) * 2 - 1
        t = torch.tensor([1, 2, 300])
        expected = convnext_unet.restored(R.state_dict(), x, t)
        # The severity's embedding is float32 on either side.
        torch.testing.assert_close(
            R(x, t), expected, rtol=0, atol=1e-6 * float(expected.abs().max())
        )
