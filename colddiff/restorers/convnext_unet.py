"""The ConvNeXt U-Net of Cold Diffusion: depthwise 7x7 blocks and linear attention (PAPER 2.1)."""

from __future__ import annotations

from itertools import pairwise
from typing import Annotated, Literal, cast

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812  # torch's own name for it

from colddiff.errors import SpecError
from colddiff.restorers.base import RESTORERS, Restorer, RestorerSpec, sinusoid
from colddiff.types import Image, ImageShape, Severity


@RESTORERS.register
class ConvNextUnetSpec(RestorerSpec):
    """The paper's network for MNIST, CelebA and AFHQ, and for all snow and colour models."""

    kind: Literal["convnext_unet"] = "convnext_unet"
    dim: Annotated[
        int, Field(ge=4, le=1024, multiple_of=2, description="channels at full resolution")
    ] = 64
    dim_mults: Annotated[
        tuple[Annotated[int, Field(ge=1, le=64)], ...],
        Field(min_length=1, max_length=8, description="channels of each resolution, in `dim`"),
    ] = (1, 2, 4, 8)
    residual: Annotated[bool, Field(description="R adds its input to its output")] = False
    time_embedding: Annotated[bool, Field(description="false hides the severity from R")] = True

    def build(self, shape: ImageShape) -> ConvNextUnet:
        check_halvings(shape, len(self.dim_mults) - 1, "restorer.dim_mults")
        return ConvNextUnet(self, shape.channels)


def check_halvings(shape: ImageShape, halvings: int, field: str) -> None:
    """SpecError naming ``field`` unless ``shape`` can be halved so often and keeps 2 px a side."""
    short = min(shape.height, shape.width)
    if shape.height % 2**halvings or shape.width % 2**halvings:
        problem = f"so both sides must be divisible by {2**halvings}"
    elif short >> halvings < 2:
        problem = f"which leaves {short >> halvings} px of {short}; at least 2 must be left"
    else:
        return
    raise SpecError(
        [
            (
                field,
                f"{halvings + 1} resolutions halve a {shape.height}x{shape.width} px image "
                f"{halvings} times, {problem}; take fewer resolutions or another image_size",
            )
        ]
    )


class ConvNextUnet(Restorer):
    """R(x_t, t): two blocks and a linear attention at each resolution, down and up, with skips."""

    def __init__(self, spec: ConvNextUnetSpec, channels: int) -> None:
        super().__init__()
        self.residual = spec.residual
        widths = [channels, *(spec.dim * mult for mult in spec.dim_mults)]
        time_width = spec.dim if spec.time_embedding else None
        self.time_mlp = (
            nn.Sequential(
                Sinusoid(spec.dim),
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
                    nn.Conv2d(outer, outer, 4, 2, 1) if level + 1 < len(levels) else nn.Identity(),
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
            nn.Conv2d(spec.dim * spec.dim_mults[0], channels, 1),
        )

    def forward(self, x_t: Image, t: Severity) -> Image:
        time = self.time_mlp(t) if self.time_mlp is not None else None
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


class Sinusoid(nn.Module):
    """The sinusoidal embedding of severities as the first layer of the time network."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width

    def forward(self, t: Severity) -> Tensor:
        return sinusoid(t, self.width)


class ConvNextBlock(nn.Module):
    """Depthwise 7x7 plus the severity, channel norm, 3x3 to twice the width, GELU, 3x3; a skip."""

    def __init__(
        self, inner: int, outer: int, time_width: int | None, *, norm: bool = True
    ) -> None:
        super().__init__()
        # The severity enters at the *input* width, before the block widens.
        self.mlp = (
            nn.Sequential(nn.GELU(), nn.Linear(time_width, inner))
            if time_width is not None
            else None
        )
        self.ds_conv = nn.Conv2d(inner, inner, 7, padding=3, groups=inner)
        self.net = nn.Sequential(
            ChannelLayerNorm(inner) if norm else nn.Identity(),
            nn.Conv2d(inner, 2 * outer, 3, padding=1),
            nn.GELU(),
            nn.Conv2d(2 * outer, outer, 3, padding=1),
        )
        self.res_conv = nn.Conv2d(inner, outer, 1) if inner != outer else nn.Identity()

    def forward(self, x: Tensor, time: Tensor | None = None) -> Tensor:
        h = self.ds_conv(x)
        if self.mlp is not None:
            h = h + self.mlp(time)[:, :, None, None]
        out: Tensor = self.net(h) + self.res_conv(x)
        return out


class ChannelLayerNorm(nn.Module):
    """Each pixel's channels to mean 0 and variance 1 (eps 1e-5), then scaled by g, shifted by b."""

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
    """(q softmax_space(k)^T) v in O(pixels), with 4 heads of 32 channels."""

    heads, head_width = 4, 32

    def __init__(self, channels: int) -> None:
        super().__init__()
        width = self.heads * self.head_width
        self.to_qkv = nn.Conv2d(channels, 3 * width, 1, bias=False)
        self.to_out = nn.Conv2d(width, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        batch, _, height, width = x.shape
        qkv = self.to_qkv(x).reshape(batch, 3, self.heads, self.head_width, height * width)
        q, k, v = qkv.unbind(1)
        context = k.softmax(dim=-1) @ v.mT
        mixed = context.mT @ (q * self.head_width**-0.5)
        out: Tensor = self.to_out(mixed.reshape(batch, -1, height, width))
        return out


class PreNorm(nn.Module):
    """fn(norm(x))."""

    def __init__(self, channels: int, fn: nn.Module) -> None:
        super().__init__()
        self.fn = fn
        self.norm = ChannelLayerNorm(channels)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.fn(self.norm(x))
        return out


class Residual(nn.Module):
    """x + fn(x)."""

    def __init__(self, fn: nn.Module) -> None:
        super().__init__()
        self.fn = fn

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.fn(x) + x
        return out


def attention(channels: int) -> Residual:
    """x + attention(norm(x)), nested as the paper's parameter names want it."""
    return Residual(PreNorm(channels, LinearAttention(channels)))
