"""Command-line overrides ``key=value``: a dotted path and a YAML value."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from typing import Any

from colddiff.errors import SpecError
from colddiff.spec.documents import DocumentError, shown
from colddiff.spec.yaml_documents import read_yaml


def parse_override(text: str) -> tuple[list[str], Any]:
    """``a.b=1e-4`` -> (["a", "b"], 0.0001); the value is YAML 1.2.

    >>> parse_override("optimizer.lr=1e-4")
    (['optimizer', 'lr'], 0.0001)
    """
    key, equals, value = text.partition("=")
    path = key.strip().split(".")
    if not equals or not all(path):
        raise SpecError(f"{shown(text)} is not an override; use key=value, such as seed=3")
    try:
        return path, read_yaml(value)
    except DocumentError as error:
        raise SpecError([(key, f"{shown(value)}: {str(error).removeprefix('line 1: ')}")]) from None


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
                    [
                        (
                            ".".join(path[:depth]),
                            f"is {shown(below)}, which has no field {path[depth]!r}",
                        )
                    ]
                )
            inner = below
        inner[path[-1]] = value
    return result
