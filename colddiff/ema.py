"""Exponential moving average of a network's weights, used for sampling (PAPER 2)."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn


class Ema:
    """Averages parameters, not buffers: a copy before ``start``, then ema = d ema + (1 - d) w.

    Updated after optimizer step k if k is a multiple of ``every``.
    """

    def __init__(self, model: nn.Module, *, decay: float, every: int, start: int) -> None:
        self.decay, self.every, self.start = decay, every, start
        self._names = [name for name, _ in model.named_parameters()]
        self._weights: list[Tensor] = list(model.parameters())
        self._average = [parameter.detach().clone() for parameter in self._weights]

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Update after optimizer step ``step`` = 1, 2, ..."""
        if step % self.every:
            return
        if step < self.start:
            torch._foreach_copy_(self._average, self._weights)
        else:
            torch._foreach_lerp_(self._average, self._weights, 1 - self.decay)

    def state(self) -> dict[str, Tensor]:
        """Averaged parameters by name, not copied."""
        return dict(zip(self._names, self._average, strict=True))

    @torch.no_grad()
    def load(self, state: Mapping[str, Tensor]) -> None:
        """Load averaged parameters by name."""
        for name, average in zip(self._names, self._average, strict=True):
            average.copy_(state[name])
