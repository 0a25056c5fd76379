"""Frozen specs, search ranges, overrides, plugins and the open catalogues of kinds."""

from colddiff.spec.base import (
    LATER,
    Spec,
    canonical_json,
    digest,
    nearest,
    parse,
    refuse_fields_without_hook,
)
from colddiff.spec.overrides import apply_overrides
from colddiff.spec.ranges import Choices, Range, SearchRange, Unit, search_ranges
from colddiff.spec.registry import Catalogue, KindOf, Registry

__all__ = [
    "LATER",
    "Catalogue",
    "Choices",
    "KindOf",
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
    "refuse_fields_without_hook",
    "search_ranges",
]
