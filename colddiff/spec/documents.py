"""JSON that others wrote: read here alone, with type, depth, size and keys checked."""

from __future__ import annotations

import json
import reprlib
from collections.abc import Hashable, Iterable
from functools import cache
from typing import Any, TypeVar, cast

from pydantic import TypeAdapter, ValidationError

DEEPEST = 64
"""Levels of nesting; Python's own recursion ends somewhere above 900."""
MOST_BYTES = 64 << 20
MOST_BITS = 64
"""Of a whole number: what no integer of a machine holds is a typing error."""
SHOWN = 80
"""Characters of a value in a message."""

T = TypeVar("T")


class DocumentError(Exception):
    """Text that is not the document that it should be; says why in one short line."""


def read_json(data: bytes | str, *, most_bytes: int = MOST_BYTES) -> Any:
    """The value of a JSON text of at most ``most_bytes``.

    Raises DocumentError if it is not JSON, nested deeper than 64 levels, has a key twice in one
    object, or a whole number beyond 64 bits.
    """
    if len(data) > most_bytes:
        raise DocumentError(f"has {len(data):,} bytes, at most {most_bytes:,} are read")
    try:
        found = json.loads(data, object_pairs_hook=_object, parse_int=whole_number)
    except json.JSONDecodeError as error:
        raise DocumentError(f"is not JSON ({error})") from None
    except UnicodeDecodeError:
        raise DocumentError("is not JSON (not UTF-8 text)") from None
    except RecursionError:
        raise DocumentError(f"is nested deeper than {DEEPEST} levels") from None
    _refuse_depth(found)
    return found


def read_json_object(data: bytes | str, *, most_bytes: int = MOST_BYTES) -> dict[str, Any]:
    """``read_json`` of a text that must be an object."""
    found = read_json(data, most_bytes=most_bytes)
    if not isinstance(found, dict):
        raise DocumentError("is not a JSON object")
    return found


def as_record(cls: type[T], data: Any) -> T:
    """JSON data as the dataclass ``cls``, without converting types; fields it lacks are ignored.

    Raises DocumentError naming each field that is missing or of another type.
    """
    try:
        # As JSON again: pydantic's strict mode makes a dataclass of no mapping of Python's.
        adapter = _adapter(cast("Hashable", cls))
        return cast("T", adapter.validate_json(json.dumps(data), strict=True))
    except ValidationError as error:
        found = [
            f"{'.'.join(map(str, item['loc'])) or 'it'} is missing"
            if item["type"] == "missing"
            else f"{'.'.join(map(str, item['loc'])) or 'it'} is {shown(item['input'])}: "
            f"{item['msg'][:1].lower()}{item['msg'][1:]}"
            for item in error.errors(include_url=False)[:3]
        ]
        raise DocumentError(f"is damaged: {'; '.join(found)}") from None


@cache
def _adapter(cls: Any) -> TypeAdapter[Any]:
    return TypeAdapter(cls)


def shown(value: object) -> str:
    """``value`` in a message: at most 80 printable characters, whatever it is."""
    text = _SHOWN.repr(value)
    return text if len(text) <= SHOWN else f"{text[: SHOWN - 1]}…"


class _Shown(reprlib.Repr):
    def __init__(self) -> None:
        super().__init__()
        self.maxstring = self.maxother = SHOWN
        self.maxlist = self.maxdict = self.maxtuple = 8

    def repr_int(self, x: int, level: int) -> str:
        # Python refuses to print numbers of more than 4300 digits.
        return (
            str(x) if x.bit_length() <= 256 else f"a number of {int(x.bit_length() * 0.301)} digits"
        )


_SHOWN = _Shown()


def whole_number(text: str, base: int = 10) -> int:
    """The number; raises DocumentError for one that no integer of a machine holds."""
    # By its length first: Python refuses to convert more than 4300 digits.
    number = int(text, base) if len(text) <= MOST_BITS + 2 else None
    if number is None or number.bit_length() > MOST_BITS:
        raise DocumentError(f"{shown(text)} is a number that no machine holds")
    return number


def _object(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise DocumentError(f"has the key {shown(key)} twice")
        found[key] = value
    return found


def _refuse_depth(value: Any) -> None:
    level, depth = [value] if isinstance(value, dict | list) else [], 0
    while level:
        if depth > DEEPEST:
            raise DocumentError(f"is nested deeper than {DEEPEST} levels")
        level = [
            inner
            for outer in level
            for inner in (outer.values() if isinstance(outer, dict) else outer)
            if isinstance(inner, dict | list)
        ]
        depth += 1
