"""Samplers, from x_T back to x_0: one file each, discovered in this package."""

from colddiff.samplers.base import (
    CURVE,
    DEFAULT,
    RESERVED,
    SAMPLERS,
    Sampler,
    SamplerName,
    check_samplers,
    column_labels,
    find_sampler,
    full,
)

__all__ = [
    "CURVE",
    "DEFAULT",
    "RESERVED",
    "SAMPLERS",
    "Sampler",
    "SamplerName",
    "check_samplers",
    "column_labels",
    "find_sampler",
    "full",
]
