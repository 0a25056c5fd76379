"""The DDPM U-Net: residual blocks with group norm, attention at chosen resolutions (PAPER 2.1)."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812  # torch's own name for it

from colddiff.restorers.ddpm_unet import NORM_GROUPS, DdpmUnetSpec
from colddiff.restorers.networks.base import Block, Restorer, sinusoid
from colddiff.restorers.networks.convolution import Convolution
from colddiff.types import Image, Severity


class DdpmUnet(Restorer):
    """The U-Net; ``attended`` has a flag per resolution: whether its blocks have attention."""

    def __init__(self, spec: DdpmUnetSpec, channels: int, attended: list[bool]) -> None:
        super().__init__()
        self.ch = spec.ch
        widths = [spec.ch * mult for mult in spec.ch_mult]
        time_width = 4 * spec.ch
        last = len(widths) - 1

        def block(inner: int, outer: int) -> ResidualBlock:
            return ResidualBlock(inner, outer, time_width, spec.dropout)

        self.temb = TimeEmbedding(spec.ch)
        self.conv_in = Convolution(channels, spec.ch, 3, padding=1)
        # Channels of the skip connections, in order: conv_in, blocks, downsamplings.
        skips = [spec.ch]
        self.down = nn.ModuleList()
        for i, (inner, outer) in enumerate(pairwise([spec.ch, *widths])):
            ins = [inner] + [outer] * (spec.num_res_blocks - 1)
            resize = Halve(outer) if i < last else None
            self.down.append(Level([block(n, outer) for n in ins], attended[i], downsample=resize))
            skips += [outer] * (spec.num_res_blocks + (i < last))
        self.mid = Middle(block(widths[-1], widths[-1]), block(widths[-1], widths[-1]))
        ups = []
        inner = widths[-1]
        for i in reversed(range(len(widths))):
            blocks = []
            for _ in range(spec.num_res_blocks + 1):
                blocks.append(block(inner + skips.pop(), widths[i]))
                inner = widths[i]
            ups.append(Level(blocks, attended[i], upsample=Double(inner) if i else None))
        # up.0 is the full resolution, which runs last.
        self.up = nn.ModuleList(reversed(ups))
        self.norm_out = group_norm(spec.ch * spec.ch_mult[0])
        self.conv_out = nn.Conv2d(spec.ch * spec.ch_mult[0], channels, 3, padding=1)

    def forward(self, x_t: Image, t: Severity) -> Image:
        # All blocks share this activation of the time embedding.
        time = F.silu(self.temb(sinusoid(t, self.ch).to(x_t.dtype)))
        x = self.conv_in(x_t)
        skips = [x]
        for level in self.down:
            assert isinstance(level, Level)
            for i in range(len(level.block)):
                x = level.run(i, x, time)
                skips.append(x)
            if level.downsample is not None:
                x = level.downsample(x)
                skips.append(x)
        x = self.mid(x, time)
        for level in reversed(self.up):
            assert isinstance(level, Level)
            for i in range(len(level.block)):
                x = level.run(i, torch.cat([x, skips.pop()], dim=1), time)
            if level.upsample is not None:
                x = level.upsample(x)
        x0_hat: Image = self.conv_out(F.silu(self.norm_out(x)))
        return x0_hat


class TimeEmbedding(nn.Module):
    """Two linear layers on the severity's sinusoidal embedding: [B, width] -> [B, 4 width]."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.dense = nn.ModuleList([nn.Linear(width, 4 * width), nn.Linear(4 * width, 4 * width)])

    def forward(self, embedded: Tensor) -> Tensor:
        first, second = self.dense
        time: Tensor = second(F.silu(first(embedded)))
        return time


class Level(nn.Module):
    """The blocks of one resolution, optionally with attention, and the resampling to the next."""

    def __init__(
        self,
        blocks: list[ResidualBlock],
        attended: bool,
        *,
        downsample: Halve | None = None,
        upsample: Double | None = None,
    ) -> None:
        super().__init__()
        self.block = nn.ModuleList(blocks)
        self.attn = nn.ModuleList(Attention(b.outer) for b in blocks if attended)
        self.downsample = downsample
        self.upsample = upsample

    def run(self, i: int, x: Tensor, time: Tensor) -> Tensor:
        """Block ``i`` and its attention."""
        x = self.block[i](x, time)
        if len(self.attn):
            x = self.attn[i](x)
        return x


class Middle(nn.Module):
    """Block, attention, block at the lowest resolution."""

    def __init__(self, first: ResidualBlock, second: ResidualBlock) -> None:
        super().__init__()
        self.block_1 = first
        self.attn_1 = Attention(first.outer)
        self.block_2 = second

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        out: Tensor = self.block_2(self.attn_1(self.block_1(x, time)), time)
        return out


class ResidualBlock(Block):
    """Norm, swish, 3x3, plus time embedding, norm, swish, dropout, 3x3; residual."""

    def __init__(self, inner: int, outer: int, time_width: int, dropout: float) -> None:
        super().__init__()
        self.outer = outer
        self.norm1 = group_norm(inner)
        self.conv1 = nn.Conv2d(inner, outer, 3, padding=1)
        self.temb_proj = nn.Linear(time_width, outer)
        self.norm2 = group_norm(outer)
        self.dropout = nn.Dropout(dropout)
        self.conv2 = nn.Conv2d(outer, outer, 3, padding=1)
        self.nin_shortcut = Convolution(inner, outer, 1) if inner != outer else nn.Identity()

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        h = self.conv1(F.silu(self.norm1(x))) + self.temb_proj(time)[:, :, None, None]
        h = self.conv2(self.dropout(F.silu(self.norm2(h))))
        out: Tensor = self.nin_shortcut(x) + h
        return out


class Attention(Block):
    """x + softmax(q k^T / sqrt(C)) v over all pixels, one head of all C channels."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = group_norm(channels)
        self.q = Convolution(channels, channels, 1)
        self.k = Convolution(channels, channels, 1)
        self.v = Convolution(channels, channels, 1)
        self.proj_out = Convolution(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        h = self.norm(x)
        # [B, C, H, W] -> one head of [B, 1, pixels, C].
        q, k, v = (to(h).flatten(2).mT.unsqueeze(1) for to in (self.q, self.k, self.v))
        mixed = F.scaled_dot_product_attention(q, k, v)
        out: Tensor = x + self.proj_out(mixed.squeeze(1).mT.reshape(x.shape))
        return out


class Halve(nn.Module):
    """3x3 at stride 2, padded by one pixel at the bottom and right only."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.conv(F.pad(x, (0, 1, 0, 1)))
        return out


class Double(nn.Module):
    """Each pixel repeated 2x2, then 3x3."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))
        return out


def group_norm(channels: int) -> nn.GroupNorm:
    """The norm of every block: 32 groups, eps 1e-6."""
    return nn.GroupNorm(NORM_GROUPS, channels, eps=1e-6)
