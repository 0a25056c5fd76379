"""Frozen specs, search ranges, overrides, plugins and the open registry of kinds."""

from colddiff.spec.base import Spec, canonical_json, digest, nearest, parse
from colddiff.spec.overrides import apply_overrides
from colddiff.spec.ranges import Choices, Range, SearchRange, Unit, search_ranges
from colddiff.spec.registry import Registry

__all__ = [
    "Choices",
    "Range",
    "Registry",
    "SearchRange",
    "Spec",
    "Unit",
    "apply_overrides",
    "canonical_json",
    "digest",
    "nearest",
    "parse",
    "search_ranges",
]
