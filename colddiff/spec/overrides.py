"""Command-line overrides ``key=value``: a dotted path and a YAML value."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterable, Mapping
from typing import Any

from colddiff.errors import SpecError
from colddiff.spec.documents import DocumentError, shown
from colddiff.spec.yaml_documents import read_yaml

INDEX = re.compile(r"\[(\d+)\]")


def parse_override(text: str) -> tuple[list[str], Any]:
    """``a.b=1e-4`` -> (["a", "b"], 0.0001); the value is YAML 1.2.

    An entry of a list is named by its number, from 0: ``jobs.1.name=b``, or ``jobs[1].name=b``.

    >>> parse_override("optimizer.lr=1e-4")
    (['optimizer', 'lr'], 0.0001)
    """
    if not isinstance(text, str):
        raise SpecError(f"{shown(text)} is not an override; use key=value, such as seed=3")
    key, equals, value = text.partition("=")
    path = INDEX.sub(r".\1", key.strip()).split(".")
    if not equals or not all(path):
        raise SpecError(f"{shown(text)} is not an override; use key=value, such as seed=3")
    try:
        return path, read_yaml(value)
    except DocumentError as error:
        raise SpecError([(key, f"{shown(value)}: {str(error).removeprefix('line 1: ')}")]) from None


def apply_overrides(data: Mapping[str, Any], overrides: Iterable[str]) -> dict[str, Any]:
    """A copy of ``data`` with the overrides applied in order.

    A mapping replaces the one it meets, but keeps the kind, and the fields, where it names none.

    >>> apply_overrides({"seed": 0, "optimizer": {"lr": 0.1}}, ["seed=3", "optimizer.lr=1e-3"])
    {'seed': 3, 'optimizer': {'lr': 0.001}}
    """
    result = copy.deepcopy(dict(data))
    for text in overrides:
        path, value = parse_override(text)
        _set(result, path, value)
    return result


def changed(data: Mapping[str, Any], fields: Mapping[str, Any]) -> dict[str, Any]:
    """A copy of ``data`` with ``fields`` set, nested (and merged) or by dotted path.

    >>> changed({"optimizer": {"lr": 0.1, "clip": 1}}, {"optimizer": {"lr": 1}, "ema.decay": 0.9})
    {'optimizer': {'lr': 1, 'clip': 1}, 'ema': {'decay': 0.9}}
    """
    names: list[Any] = list(fields)
    for name in names:
        if not isinstance(name, str):
            raise SpecError(f"{shown(name)} is not the name of a field")
    result = merged(data, {name: value for name, value in fields.items() if "." not in name})
    for name, value in fields.items():
        if "." in name:
            path = name.split(".")
            if not all(path):
                raise SpecError(f"{shown(name)} is not the path of a field, such as optimizer.lr")
            _set(result, path, copy.deepcopy(value))
    return result


def merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """``base`` with the fields of ``over``; a mapping of another kind replaces the one it meets."""
    found = copy.deepcopy(dict(base))
    for key, value in over.items():
        below = found.get(key)
        # Another kind has other fields: merging them into the old kind's would mix the two.
        same_kind = isinstance(value, Mapping) and value.get("kind", None) in (
            None,
            below.get("kind") if isinstance(below, Mapping) else None,
        )
        if isinstance(below, Mapping) and isinstance(value, Mapping) and same_kind:
            found[key] = merged(below, value)
        else:
            found[key] = copy.deepcopy(value)
    return found


def _set(data: dict[str, Any], path: list[str], value: Any) -> None:
    inner: Any = data
    for depth, part in enumerate(path[:-1], start=1):
        key = _key(inner, path, depth)
        below = inner[key] if isinstance(inner, list) else inner.get(part)
        if below is None:
            below = inner[key] = {}
        if not isinstance(below, dict | list):
            what = f"is {shown(below)}, which has no field {path[depth]!r}"
            raise SpecError([(".".join(path[:depth]), what)])
        inner = below
    last = _key(inner, path, len(path))
    there = inner[last] if isinstance(inner, list) else inner.get(last)
    partial = isinstance(value, Mapping) and "kind" not in value
    if partial and isinstance(there, Mapping) and "kind" in there:
        value = merged(there, value)  # another kind's fields cannot be meant: as `path.field=...`
    inner[last] = value


def _key(inner: Any, path: list[str], depth: int) -> Any:
    """The part of ``path`` at ``depth`` as what ``inner`` is asked for: of a list, a number."""
    part = path[depth - 1]
    if not isinstance(inner, list):
        return part
    if not part.isdigit() or int(part) >= len(inner):
        known = f"its entries are 0 to {len(inner) - 1}" if inner else "it is empty"
        what = f"is a list, which has no entry {part!r}; {known}"
        raise SpecError([(".".join(path[: depth - 1]), what)])
    return int(part)
