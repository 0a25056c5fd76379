"""What the networks of restorers share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import final

import torch
from torch import Tensor, nn

from colddiff.types import Image, Severity


class Restorer(nn.Module, ABC):
    """A network R(x_t, t) that estimates x0; t is int64 [B] in 1..T, images [B, C, H, W].

    Parameter names and shapes match the paper's code, so that its state dicts load.
    """

    @abstractmethod
    def forward(self, x_t: Image, t: Severity) -> Image:
        """The estimate x0_hat, of the shape of ``x_t``; not clipped to [-1, 1]."""

    @property
    @final
    def num_parameters(self) -> int:
        """Number of trainable scalars."""
        return sum(parameter.numel() for parameter in self.parameters())


class Block(nn.Module):
    """Part of a restorer; row i of its output depends only on row i of each input."""


def sinusoid(t: Severity, width: int) -> Tensor:
    """Sinusoidal embedding float32 [B, width] of severities 1..T: sines, then cosines.

    The paper's code passes the index i = t - 1 to its networks; this is the only place that shifts.
    """
    half = width // 2
    scale = -torch.log(torch.tensor(10000.0)) / (half - 1)
    frequencies = torch.exp(torch.arange(half, device=t.device, dtype=torch.float32) * scale)
    angles = (t - 1).to(torch.float32)[:, None] * frequencies[None, :]
    return torch.cat([angles.sin(), angles.cos()], dim=-1)
