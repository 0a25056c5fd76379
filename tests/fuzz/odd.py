"""Strategies for documents that are almost right: a valid one, changed in a few places."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping, Sequence
from typing import Any

from hypothesis import strategies as st

TEXT = st.text(max_size=8) | st.sampled_from(
    [
        "", " ", "..", "/", "../../x", "/dev/zero", "a\nb", "a\x1b[31mb", "\x00", "\ufeff",
        "é" * 300, "x" * 5000, "nan", "1e400", "yes", "%s", "{}", "s3://", "pipe:cat", "~", "*",
        "step_00000009", "\ud800",
    ]
)  # fmt: skip
NUMBERS = st.integers(-3, 40) | st.sampled_from(
    [
        -1, 2**31, 2**53 + 1, 2**63, 2**64, -(2**63), 10**9, 10**15, 10**400, 0.5, -0.0, 1e-320,
        1e15, 1e308, -1e308, float("nan"), float("inf"), float("-inf"),
    ]
)  # fmt: skip
SCALARS = st.none() | st.booleans() | NUMBERS | TEXT
VALUES = st.recursive(
    SCALARS,
    lambda below: st.lists(below, max_size=4) | st.dictionaries(TEXT, below, max_size=3),
    max_leaves=6,
)
"""Anything that JSON or YAML may hold."""

Path = tuple[Any, ...]
Strategy = st.SearchStrategy[Any]


def places(value: Any, at: Path = ()) -> list[Path]:
    """The path of every value in a document, its own first."""
    if isinstance(value, Mapping):
        inner: Sequence[tuple[Any, Any]] = list(value.items())
    elif isinstance(value, list | tuple):
        inner = list(enumerate(value))
    else:
        inner = ()
    return [at, *(path for key, item in inner for path in places(item, (*at, key)))]


@st.composite
def changed(draw: st.DrawFn, document: Any, words: Sequence[str] = ()) -> Any:
    """``document`` with one to four changes: a value replaced, moved, removed, or one added.

    ``words`` are texts that mean something there, such as names of kinds.
    """
    found = copy.deepcopy(document)
    values = VALUES | st.sampled_from(list(words)) if words else VALUES
    for _ in range(draw(st.integers(1, 4))):
        path = draw(st.sampled_from(places(found)))
        if path:
            _change(draw, _at(found, path[:-1]), path[-1], document, values, words)
        elif draw(st.integers(0, 9)) == 0:
            return draw(values)
    return found


def _change(
    draw: st.DrawFn, holder: Any, key: Any, document: Any, values: Strategy, words: Sequence[str]
) -> None:
    """One change of the value at ``key``, or beside it."""
    match draw(st.sampled_from(["near", "replace", "remove", "add", "move", "wrap"])):
        case "near":
            holder[key] = draw(_near(holder[key], words))
        case "replace":
            holder[key] = draw(values)
        case "remove":
            del holder[key]
        case "wrap":
            holder[key] = [holder[key]] * draw(st.integers(0, 3))
        case "move":
            holder[key] = copy.deepcopy(_at(document, draw(st.sampled_from(places(document)))))
        case _ if isinstance(holder, dict):
            holder[draw(TEXT | st.sampled_from(list(words) or ["x"]))] = draw(values)
        case _:
            holder.insert(draw(st.integers(0, len(holder))), draw(values))


def _near(value: Any, words: Sequence[str]) -> Strategy:
    """Of the same type, so that more than a type is checked."""
    if isinstance(value, bool):
        return st.booleans()
    if isinstance(value, int | float):
        return NUMBERS | st.sampled_from([0, 1, 2 * value, -value, 0.5])
    return TEXT | st.sampled_from([str(value), *words])


def _at(document: Any, path: Path) -> Any:
    for part in path:
        document = document[part]
    return document


@st.composite
def broken(draw: st.DrawFn, data: bytes) -> bytes:
    """``data`` cut, with bytes replaced, or with a part of it repeated."""
    found = bytearray(data)
    for _ in range(draw(st.integers(1, 3))):
        if not found:
            break
        start = draw(st.integers(0, len(found) - 1))
        change = draw(st.sampled_from(["byte", "cut", "insert", "repeat"]))
        if change == "byte":
            found[start] = draw(st.integers(0, 255))
        elif change == "cut":
            del found[start:]
        elif change == "insert":
            found[start:start] = draw(st.binary(max_size=20))
        else:
            end = min(len(found), start + draw(st.integers(1, 600)))
            found[end:end] = found[start:end]
    return bytes(found)


BYTES = st.binary(max_size=40) | st.sampled_from(
    [
        b"", b"null", b"[]", b"[" * 70_000, b'{"a":' * 3_000, b"\xff\xfe{}", b"\xef\xbb\xbf{}",
        b'{"a": 1, "a": 2}', b'{"step": ' + b"9" * 5000 + b"}", b"\0" * 100,
    ]
)  # fmt: skip


@st.composite
def json_like(draw: st.DrawFn, document: Any, words: Sequence[str] = ()) -> bytes:
    """A JSON text that is almost ``document``; now and then no JSON at all."""
    kind = draw(st.integers(0, 9))
    if kind == 0:
        return draw(BYTES)
    if kind <= 2:
        return draw(broken(json.dumps(document).encode()))
    return json.dumps(draw(changed(document, words))).encode()
