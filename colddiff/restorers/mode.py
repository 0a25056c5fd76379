"""Restorers in evaluation mode."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def evaluating(R: object) -> Iterator[None]:
    """R in evaluation mode meanwhile, where it is a module; each part gets its own mode back."""
    # Its own: some of them may be frozen in evaluation mode.
    training = [m for m in R.modules() if m.training] if isinstance(R, torch.nn.Module) else []
    for module in training:
        module.training = False
    try:
        yield
    finally:
        for module in training:
            module.training = True
