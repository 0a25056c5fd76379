"""Command-line overrides ``key=value``: a dotted path and a YAML value."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from typing import Any

import yaml

from colddiff.errors import SpecError


def parse_override(text: str) -> tuple[list[str], Any]:
    """``a.b=1e-4`` -> (["a", "b"], 0.0001); the value is YAML, plus floats such as ``1e-4``.

    >>> parse_override("optimizer.lr=1e-4")
    (['optimizer', 'lr'], 0.0001)
    """
    key, equals, value = text.partition("=")
    path = key.strip().split(".")
    if not equals or not all(path):
        raise SpecError(f"{text!r} is not an override; use key=value, such as seed=3")
    try:
        parsed = yaml.safe_load(value)
    except yaml.YAMLError as error:
        problem = getattr(error, "problem", None) or "not YAML"
        raise SpecError([(key, f"{value!r} is not valid YAML ({problem})")]) from None
    return path, _number(parsed)


def apply_overrides(data: Mapping[str, Any], overrides: Iterable[str]) -> dict[str, Any]:
    """A copy of ``data`` with the overrides applied in order.

    >>> apply_overrides({"seed": 0, "optimizer": {"lr": 0.1}}, ["seed=3", "optimizer.lr=1e-3"])
    {'seed': 3, 'optimizer': {'lr': 0.001}}
    """
    result = copy.deepcopy(dict(data))
    for text in overrides:
        path, value = parse_override(text)
        inner = result
        for depth, part in enumerate(path[:-1], start=1):
            below = inner.get(part)
            if below is None:
                below = inner[part] = {}
            if not isinstance(below, dict):
                raise SpecError(
                    [(".".join(path[:depth]), f"is {below!r}, which has no field {path[depth]!r}")]
                )
            inner = below
        inner[path[-1]] = value
    return result


def _number(value: Any) -> Any:
    # YAML 1.1 reads 1e-4 as a string, because it requires 1.0e-4.
    if isinstance(value, str):
        try:
            return float(value) if any(c.isdigit() for c in value) else value
        except ValueError:
            return value
    if isinstance(value, list):
        return [_number(item) for item in value]
    if isinstance(value, dict):
        return {key: _number(item) for key, item in value.items()}
    return value
