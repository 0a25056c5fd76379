"""Restorers R(x_t, t): one kind per file, discovered in this package."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from colddiff.restorers.base import RESTORERS, AnyRestorer, RestorerSpec, build_restorer
from colddiff.restorers.mode import evaluating

if TYPE_CHECKING:
    from colddiff.restorers.networks.base import Restorer
    from colddiff.restorers.networks.inference import for_inference

_WITH_TORCH = {
    "Restorer": "colddiff.restorers.networks.base",
    "for_inference": "colddiff.restorers.networks.inference",
}
"""Imported on first use: who reads the fields of a job needs no network."""

__all__ = [
    "RESTORERS",
    "AnyRestorer",
    "Restorer",
    "RestorerSpec",
    "build_restorer",
    "evaluating",
    "for_inference",
]


if not TYPE_CHECKING:  # seen by a type checker, it would allow every name

    def __getattr__(name: str) -> Any:
        if name not in _WITH_TORCH:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(importlib.import_module(_WITH_TORCH[name]), name)
