"""Winograd 3x3 convolution with fixed weights on a CPU: a quarter of the multiplications.

Winograd's F(4x4, 3x3) (Lavin and Gray, arXiv 1509.09308): a tile of 4x4 outputs takes 36 products
for each pair of channels instead of 144. The usual points 0, 1, 2 cost accuracy; with 2/3 and 3/2
in their place (after Barabasz et al., arXiv 1803.10986) float32 results are within 1.3 millionths
(rms) of the exact ones. A direct convolution of 128 to 1024 channels is within 0.3 millionths on a
CPU with AVX-512, and within 0.6 to 1.7 on one without.
"""

from __future__ import annotations

from functools import cache
from itertools import product
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

TILE, TAPS = 4, 3
SPAN = TILE + TAPS - 1
"""Side of a tile's input in px, and number of products along one axis."""
POINTS = (0.0, 2 / 3, -2 / 3, 3 / 2, -3 / 2)
"""Interpolation points, besides infinity."""
CHUNK = 128
"""Tiles processed at once, so that their intermediate results stay in the cache."""
LEAST_CHANNELS, LEAST_TILES = 128, 16
"""Below either, the direct convolution measures as fast: too few multiplications per transformed
value, or per weight read."""


class WinogradConvolution(nn.Module):
    """A convolution of float32 images [B, C, H, W], with its weights transformed in advance.

    Without gradients. Falls back to the direct convolution for few tiles and under autocast.
    """

    to_tiles: Tensor
    to_pixels: Tensor
    products: Tensor

    def __init__(self, convolution: nn.Conv2d) -> None:
        super().__init__()
        self.direct = convolution
        tile, kernel, pixels = _transforms()
        weight = convolution.weight.detach().double().flatten(2)
        # [Co, C, 9] -> [36, C, Co]: one matrix per product.
        products = torch.einsum("pk,ock->pco", torch.from_numpy(kernel), weight)
        for name, value in (
            ("to_tiles", torch.from_numpy(tile)),
            ("to_pixels", torch.from_numpy(pixels)),
            ("products", products),
        ):
            self.register_buffer(name, value.float().contiguous(), persistent=False)

    @staticmethod
    def supports(convolution: nn.Conv2d) -> bool:
        """Whether it is a size-preserving float32 3x3 on a CPU with at least LEAST_CHANNELS."""
        weight = convolution.weight
        return (
            (weight.device.type, weight.dtype) == ("cpu", torch.float32)
            and convolution.kernel_size == (TAPS, TAPS)
            and convolution.stride == convolution.padding == convolution.dilation == (1, 1)
            and convolution.groups == 1
            and convolution.padding_mode == "zeros"
            and min(convolution.in_channels, convolution.out_channels) >= LEAST_CHANNELS
        )

    @torch.no_grad()
    def forward(self, x: Tensor) -> Tensor:
        batch, _, height, width = x.shape
        down, across = -(-height // TILE), -(-width // TILE)
        if batch * down * across < LEAST_TILES or torch.is_autocast_enabled("cpu"):
            return cast("Tensor", self.direct(x))
        tiles = _tiles(x, down, across)
        out = x.new_empty(batch, down, TILE, across, TILE, self.direct.out_channels)
        # Chunks are several whole images, or several rows of tiles of one image.
        images = max(1, CHUNK // (down * across))
        rows = down if images > 1 else max(1, CHUNK // across)
        for n, r in product(range(0, batch, images), range(0, down, rows)):
            here = (slice(n, n + images), slice(r, r + rows))
            self._convolve(tiles[:, :, *here], out[here])
        whole = out.view(batch, TILE * down, TILE * across, -1)
        return whole[:, :height, :width].permute(0, 3, 1, 2)

    def _convolve(self, tiles: Tensor, out: Tensor) -> None:
        """``tiles`` [6, 6, n, rows, across, C] to ``out`` [n, rows, 4, across, 4, Co]."""
        channels, wide = self.products.shape[1:]
        inputs = torch.mm(self.to_tiles, tiles.reshape(SPAN**2, -1))
        outputs = torch.bmm(inputs.view(SPAN**2, -1, channels), self.products)
        pixels = torch.mm(self.to_pixels, outputs.view(SPAN**2, -1))
        pixels = pixels.view(TILE, TILE, *tiles.shape[2:5], wide).permute(2, 3, 0, 4, 1, 5)
        if self.direct.bias is None:
            out.copy_(pixels)
        else:
            torch.add(pixels, self.direct.bias, out=out)


def _tiles(x: Tensor, down: int, across: int) -> Tensor:
    """Overlapping tiles of ``x`` [B, C, H, W], zero-padded: a view [6, 6, B, down, across, C]."""
    batch, channels, height, width = x.shape
    padded = x.new_empty(batch, TILE * down + 2, TILE * across + 2, channels)
    padded[:, 0] = padded[:, height + 1 :] = 0.0
    padded[:, :, 0] = padded[:, :, width + 1 :] = 0.0
    padded[:, 1 : height + 1, 1 : width + 1] = x.permute(0, 2, 3, 1)
    image, row, pixel, _ = padded.stride()
    return padded.as_strided(
        (SPAN, SPAN, batch, down, across, channels),
        (row, pixel, image, TILE * row, TILE * pixel, 1),
    )


@cache
def _transforms() -> tuple[
    NDArray[np.floating[Any]], NDArray[np.floating[Any]], NDArray[np.floating[Any]]
]:
    """Matrices that transform tiles [36, 36], kernels [36, 9], and products to pixels [16, 36].

    Transposed Toom-Cook multiplication of polynomials. V_n [6, n] evaluates a polynomial of n
    coefficients at the points and at infinity; outputs = V_4^T (V_3 kernel * V_6^-T tile).
    """
    tile, kernel, pixels = np.linalg.inv(_evaluation(SPAN)).T, _evaluation(TAPS), _evaluation(TILE)
    # All divisions by differences of points are moved to the kernels.
    scale = [np.prod([p - q for q in POINTS if q != p]) for p in POINTS] + [1.0]
    tile, kernel = np.diag(scale) @ tile, np.diag(1 / np.array(scale)) @ kernel
    return np.kron(tile, tile), np.kron(kernel, kernel), np.kron(pixels.T, pixels.T)


def _evaluation(count: int) -> NDArray[np.floating[Any]]:
    at_infinity = np.eye(1, count, count - 1)
    return np.concatenate([np.vander(POINTS, count, increasing=True), at_infinity])
