"""Restorers R(x_t, t): one file is one kind, found by looking into this folder."""

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
