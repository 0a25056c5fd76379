"""Search ranges, declared on a spec's field next to its bounds and unit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from colddiff.spec.base import Spec


@dataclass(frozen=True, slots=True)
class Range:
    """Search values low..high, on a log scale if ``log``; whole numbers if ``integer``."""

    low: float
    high: float
    log: bool = False
    integer: bool = False

    def __str__(self) -> str:
        return f"{self.low:g}..{self.high:g}{' (log)' if self.log else ''}"


@dataclass(frozen=True, slots=True)
class Choices:
    """A finite set of values to search."""

    values: tuple[Any, ...]

    def __str__(self) -> str:
        return " | ".join(map(str, self.values))


SearchRange = Range | Choices


@dataclass(frozen=True, slots=True)
class Unit:
    """The unit of a field."""

    name: str


def search_ranges(spec: Spec, prefix: str = "") -> dict[str, SearchRange]:
    """The search ranges declared in ``spec`` and its nested specs, by dotted path."""
    found: dict[str, SearchRange] = {}
    for name, field in type(spec).model_fields.items():
        value, path = getattr(spec, name), f"{prefix}{name}"
        if isinstance(value, Spec):
            found |= search_ranges(value, f"{path}.")
        elif value is not None:
            for mark in field.metadata:
                if isinstance(mark, Range | Choices):
                    found[path] = mark
    return found
