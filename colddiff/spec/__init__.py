"""Frozen specs, search ranges, overrides, plugins and the open catalogues of kinds.

Names are imported on first use: reading a record of a job takes ``documents`` alone.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
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

_MODULES = ("base", "overrides", "ranges", "registry")


def __getattr__(name: str) -> Any:
    if name in __all__:
        for module in _MODULES:
            home = importlib.import_module(f"{__name__}.{module}")
            if name in vars(home):
                globals()[name] = vars(home)[name]
                return globals()[name]
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
