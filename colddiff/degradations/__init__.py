"""Degradations D(x0, t): one file is one kind, found by looking into this folder."""

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
