"""PAPER 2.1: the ConvNeXt U-Net, operation by operation as the paper describes it.

The weights are a state dict with the paper's names; images [B, C, H, W], t in 1..T. Any dtype.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional

HEADS, HEAD_WIDTH = 4, 32


class Weights:
    """Those below one name, such as ``downs.0.1``."""

    def __init__(self, tensors: Mapping[str, Tensor], prefix: str = "") -> None:
        self.tensors, self.prefix = tensors, prefix

    def below(self, name: str) -> Weights:
        return Weights(self.tensors, f"{self.prefix}{name}.")

    def __getitem__(self, name: str) -> Tensor:
        return self.tensors[self.prefix + name]

    def __contains__(self, name: str) -> bool:
        return self.prefix + name in self.tensors


def restored(tensors: Mapping[str, Tensor], x: Tensor, t: Tensor) -> Tensor:
    """R(x, t)."""
    weights = Weights(tensors)
    time = _time(weights.below("time_mlp"), t).to(x.dtype)
    skips = []
    level = 0
    while f"downs.{level}.0.ds_conv.weight" in weights:
        here = weights.below(f"downs.{level}")
        x = _attended(here.below("2"), _block(here, "1", _block(here, "0", x, time), time))
        skips.append(x)
        if "3.weight" in here:
            x = _conv(here.below("3"), x, stride=2, padding=1)
        level += 1
    x = _attended(weights.below("mid_attn"), _block(weights, "mid_block1", x, time))
    x = _block(weights, "mid_block2", x, time)
    for up in range(level - 1):
        here = weights.below(f"ups.{up}")
        x = torch.cat([x, skips.pop()], dim=1)
        x = _attended(here.below("2"), _block(here, "1", _block(here, "0", x, time), time))
        x = functional.conv_transpose2d(x, here["3.weight"], here["3.bias"], stride=2, padding=1)
    return _conv(weights.below("final_conv.1"), _block(weights, "final_conv.0", x, None))


def _time(weights: Weights, t: Tensor) -> Tensor:
    width = weights["1.weight"].shape[1]
    half = width // 2
    frequencies = torch.exp(torch.arange(half, device=t.device) * (-math.log(10000) / (half - 1)))
    angles = (t - 1)[:, None] * frequencies[None, :]
    embedded = torch.cat([angles.sin(), angles.cos()], dim=1).to(weights["1.weight"].dtype)
    hidden = functional.gelu(functional.linear(embedded, weights["1.weight"], weights["1.bias"]))
    return functional.linear(hidden, weights["3.weight"], weights["3.bias"])


def _block(above: Weights, name: str, x: Tensor, time: Tensor | None) -> Tensor:
    weights = above.below(name)
    h = _conv(weights.below("ds_conv"), x, padding=3, groups=x.shape[1])
    if time is not None:
        inner = functional.linear(
            functional.gelu(time), weights["mlp.1.weight"], weights["mlp.1.bias"]
        )
        h = h + inner[:, :, None, None]
    if "net.0.g" in weights:
        h = _normed(weights.below("net.0"), h)
    h = functional.gelu(_conv(weights.below("net.1"), h, padding=1))
    h = _conv(weights.below("net.3"), h, padding=1)
    if "res_conv.weight" in weights:
        x = _conv(weights.below("res_conv"), x)
    return h + x


def _attended(above: Weights, x: Tensor) -> Tensor:
    weights = above.below("fn.fn")
    batch, _, height, width = x.shape
    projected = functional.conv2d(_normed(above.below("fn.norm"), x), weights["to_qkv.weight"])
    q, k, v = (
        part.reshape(batch, HEADS, HEAD_WIDTH, height * width) for part in projected.chunk(3, dim=1)
    )
    context = torch.einsum("bhdn,bhen->bhde", k.softmax(dim=-1), v)
    out = torch.einsum("bhde,bhdn->bhen", context, q * HEAD_WIDTH**-0.5)
    return _conv(weights.below("to_out"), out.reshape(batch, -1, height, width)) + x


def _normed(weights: Weights, x: Tensor) -> Tensor:
    mean = x.mean(dim=1, keepdim=True)
    variance = x.var(dim=1, unbiased=False, keepdim=True)
    return (x - mean) / (variance + 1e-5).sqrt() * weights["g"] + weights["b"]


def _conv(
    weights: Weights, x: Tensor, stride: int = 1, padding: int = 0, groups: int = 1
) -> Tensor:
    return functional.conv2d(x, weights["weight"], weights["bias"], stride, padding, groups=groups)
