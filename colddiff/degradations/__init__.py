"""Degradations D(x0, t): one file for each kind, discovered in this package."""

from colddiff.degradations.base import Degradation
from colddiff.degradations.spec import (
    DEGRADATIONS,
    AnyDegradation,
    DegradationSpec,
    build_degradation,
)

__all__ = [
    "DEGRADATIONS",
    "AnyDegradation",
    "Degradation",
    "DegradationSpec",
    "build_degradation",
]
