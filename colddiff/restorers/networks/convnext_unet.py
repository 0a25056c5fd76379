"""The ConvNeXt U-Net of Cold Diffusion: depthwise 7x7 blocks and linear attention (PAPER 2.1)."""

from __future__ import annotations

from itertools import pairwise
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812  # torch's own name for it

from colddiff.restorers.convnext_unet import ConvNextUnetSpec
from colddiff.restorers.networks.base import Block, Restorer, sinusoid
from colddiff.restorers.networks.convolution import Convolution
from colddiff.types import Image, Severity


class ConvNextUnet(Restorer):
    """U-Net with two blocks and a linear attention at each resolution, and skip connections."""

    def __init__(self, spec: ConvNextUnetSpec, channels: int) -> None:
        super().__init__()
        self.dim, self.residual = spec.dim, spec.residual
        widths = [channels, *(spec.dim * mult for mult in spec.dim_mults)]
        time_width = spec.dim if spec.time_embedding else None
        self.time_mlp = (
            nn.Sequential(
                nn.Identity(),  # keeps the numbering of the paper's parameter names
                nn.Linear(spec.dim, 4 * spec.dim),
                nn.GELU(),
                nn.Linear(4 * spec.dim, spec.dim),
            )
            if spec.time_embedding
            else None
        )
        levels = list(pairwise(widths))
        self.downs = nn.ModuleList(
            nn.ModuleList(
                [
                    ConvNextBlock(inner, outer, time_width, norm=level > 0),
                    ConvNextBlock(outer, outer, time_width),
                    attention(outer),
                    Convolution(outer, outer, 4, 2, 1)
                    if level + 1 < len(levels)
                    else nn.Identity(),
                ]
            )
            for level, (inner, outer) in enumerate(levels)
        )
        self.ups = nn.ModuleList(
            nn.ModuleList(
                [
                    ConvNextBlock(2 * outer, inner, time_width),
                    ConvNextBlock(inner, inner, time_width),
                    attention(inner),
                    nn.ConvTranspose2d(inner, inner, 4, 2, 1),
                ]
            )
            for inner, outer in reversed(levels[1:])
        )
        self.mid_block1 = ConvNextBlock(widths[-1], widths[-1], time_width)
        self.mid_attn = attention(widths[-1])
        self.mid_block2 = ConvNextBlock(widths[-1], widths[-1], time_width)
        self.final_conv = nn.Sequential(
            ConvNextBlock(spec.dim * spec.dim_mults[0], spec.dim * spec.dim_mults[0], None),
            Convolution(spec.dim * spec.dim_mults[0], channels, 1),
        )

    def forward(self, x_t: Image, t: Severity) -> Image:
        time = None
        if self.time_mlp is not None:
            time = self.time_mlp(sinusoid(t, self.dim).to(x_t.dtype))
        x, skips = x_t, []
        for level in self.downs:
            block1, block2, attend, halve = cast("nn.ModuleList", level)
            x = attend(block2(block1(x, time), time))
            skips.append(x)
            x = halve(x)
        x = self.mid_block2(self.mid_attn(self.mid_block1(x, time)), time)
        for level in self.ups:
            block1, block2, attend, double = cast("nn.ModuleList", level)
            x = torch.cat([x, skips.pop()], dim=1)
            x = double(attend(block2(block1(x, time), time)))
        x0_hat: Image = self.final_conv(x)
        return x0_hat + x_t if self.residual else x0_hat


class ConvNextBlock(Block):
    """Depthwise 7x7 plus time embedding, norm, 3x3 to twice the width, GELU, 3x3; residual."""

    def __init__(
        self, inner: int, outer: int, time_width: int | None, *, norm: bool = True
    ) -> None:
        super().__init__()
        # The time embedding has the *input* width; it is added before the block widens.
        self.mlp = (
            nn.Sequential(nn.GELU(), nn.Linear(time_width, inner))
            if time_width is not None
            else None
        )
        self.ds_conv = Convolution(inner, inner, 7, padding=3, groups=inner)
        self.net = nn.Sequential(
            ChannelLayerNorm(inner) if norm else nn.Identity(),
            Convolution(inner, 2 * outer, 3, padding=1),
            nn.GELU(),
            Convolution(2 * outer, outer, 3, padding=1),
        )
        self.res_conv = Convolution(inner, outer, 1) if inner != outer else nn.Identity()

    def forward(self, x: Tensor, time: Tensor | None = None) -> Tensor:
        # In channels-last layout the norm is one fused kernel, and the gradient of a depthwise
        # convolution is several times faster on a CPU.
        x = x.contiguous(memory_format=torch.channels_last)
        h = self.ds_conv(x)
        if self.mlp is not None:
            h = h + self.mlp(time)[:, :, None, None]
        out: Tensor = self.net(h) + self.res_conv(x)
        return out


class ChannelLayerNorm(nn.Module):
    """Layer norm over the channels of each pixel (eps 1e-5), with scale g and shift b."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.g = nn.Parameter(torch.ones(1, channels, 1, 1))
        self.b = nn.Parameter(torch.zeros(1, channels, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        channels = x.shape[1]
        last = F.layer_norm(
            x.permute(0, 2, 3, 1), (channels,), self.g.view(channels), self.b.view(channels), 1e-5
        )
        return last.permute(0, 3, 1, 2)


class LinearAttention(nn.Module):
    """(q softmax_space(k)^T) v in O(pixels), with 4 heads of 32 channels.

    Except for the softmax all of it is linear, so the matrix products can be reassociated. With few
    channels and many pixels (the upper levels, which cost most), only the keys are projected per
    pixel; queries, values and output reduce to one C x C matrix per image.
    """

    heads, head_width = 4, 32

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.width = self.heads * self.head_width
        self.to_qkv = nn.Conv2d(channels, 3 * self.width, 1, bias=False)
        self.to_out = nn.Conv2d(self.width, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        batch, channels, height, width = x.shape
        pixels = x.flatten(2).mT
        query, key, value = self.to_qkv.weight.flatten(1).chunk(3)
        query = query * self.head_width**-0.5
        attend = self._by_image if self._folds(channels, height * width) else self._by_pixel
        out = attend(pixels, query, key, value)
        return out.view(batch, height, width, channels).permute(0, 3, 1, 2)

    def _folds(self, channels: int, pixels: int) -> bool:
        """Whether products per image need fewer multiplications than products per pixel."""
        by_pixel = pixels * self.width * (4 * channels + 2 * self.head_width)
        matrices = self.width * channels * (2 * self.head_width + channels)
        by_image = pixels * channels * (2 * self.width + channels) + matrices
        return by_image < by_pixel

    def _by_pixel(self, pixels: Tensor, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        batch, count, _ = pixels.shape
        q, k, v = (
            F.linear(pixels, weight).view(batch, count, self.heads, -1).transpose(1, 2)
            for weight in (query, key, value)
        )
        mixed = q @ (k.softmax(dim=2).mT @ v)
        mixed = mixed.transpose(1, 2).reshape(batch, count, self.width)
        return F.linear(mixed, self.to_out.weight.flatten(1), self.to_out.bias)

    def _by_image(self, pixels: Tensor, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        batch, _, channels = pixels.shape
        k = torch.bmm(key.expand(batch, -1, -1), pixels.mT).softmax(dim=-1)
        seen = torch.bmm(k, pixels).view(batch, self.heads, self.head_width, channels)
        by_head = (self.heads, self.head_width, channels)
        context = torch.einsum("bhdc,hec->hbde", seen, value.view(by_head))
        out = self.to_out.weight.view(channels, self.heads, self.head_width)
        mixed = torch.einsum("hbde,che->bhdc", context, out).reshape(batch, self.width, channels)
        assert self.to_out.bias is not None
        return torch.baddbmm(self.to_out.bias, pixels, query.mT @ mixed)


class PreNorm(nn.Module):
    """fn(norm(x))."""

    def __init__(self, channels: int, fn: nn.Module) -> None:
        super().__init__()
        self.fn = fn
        self.norm = ChannelLayerNorm(channels)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.fn(self.norm(x))
        return out


class Residual(Block):
    """x + fn(x)."""

    def __init__(self, fn: nn.Module) -> None:
        super().__init__()
        self.fn = fn

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.fn(x) + x
        return out


def attention(channels: int) -> Residual:
    """x + attention(norm(x)), nested to match the paper's parameter names."""
    return Residual(PreNorm(channels, LinearAttention(channels)))
