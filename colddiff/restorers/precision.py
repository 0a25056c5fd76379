"""The precision of a restorer's arithmetic, for training and everything that runs it later."""

from __future__ import annotations

import logging
from contextlib import AbstractContextManager
from typing import Annotated, Literal

import torch
from pydantic import Field

log = logging.getLogger(__name__)

Precision = Annotated[
    Literal["fp32", "bf16"],
    Field(description="of the network's arithmetic; weights are kept in fp32"),
]


def at_precision(precision: str, device: torch.device | str) -> AbstractContextManager[None]:
    """Within ``with``, networks on ``device`` compute in ``precision``, ``fp32`` or ``bf16``.

    Example:
        >>> with at_precision("bf16", "cpu"):
        ...     torch.nn.Linear(2, 2)(torch.ones(1, 2)).dtype
        torch.bfloat16
    """
    kind = torch.device(device).type
    return torch.autocast(kind, torch.bfloat16, enabled=precision == "bf16")


def warn_of_slow_bf16(precision: str, device: torch.device) -> None:
    """Logs a warning where ``device`` would only emulate bf16."""
    if precision == "bf16" and bf16_is_slow(device):
        log.warning(
            "this CPU has no bf16 instructions and emulates them many times slower than fp32; use "
            "precision fp32 here, or a GPU"
        )


def bf16_is_slow(device: torch.device) -> bool:
    """Whether ``device`` is a CPU without bf16 instructions, which emulates them many times slower.

    False if PyTorch does not report it.
    """
    capabilities = getattr(torch.cpu, "get_capabilities", None)
    if device.type != "cpu" or capabilities is None:
        return False
    return not any(has for name, has in capabilities().items() if name.endswith("bf16"))
