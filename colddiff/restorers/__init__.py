"""Restorers R(x_t, t): one kind per file, discovered in this package."""

from colddiff.restorers.base import (
    RESTORERS,
    AnyRestorer,
    Restorer,
    RestorerSpec,
    build_restorer,
)
from colddiff.restorers.inference import evaluating, for_inference

__all__ = [
    "RESTORERS",
    "AnyRestorer",
    "Restorer",
    "RestorerSpec",
    "build_restorer",
    "evaluating",
    "for_inference",
]
