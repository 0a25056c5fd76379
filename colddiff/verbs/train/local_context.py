"""The worker context of training in a single process, without a cluster."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from colddiff.ports import Left


class LocalContext:
    """WorkerContext of a single process."""

    rank = 0
    world_size = 1

    def __init__(self, device: torch.device | str = "cpu") -> None:
        self.device = torch.device(device)

    def wrap(self, model: nn.Module) -> nn.Module:
        return model

    def all_reduce(self, values: Tensor) -> Tensor:
        return values

    def broadcast(self, value: Any) -> Any:
        return value

    def leaves(self) -> Left:
        return ""
