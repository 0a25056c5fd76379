"""YAML that others wrote: read here alone, with depth, size and keys checked."""

from __future__ import annotations

import re
from typing import Any

import yaml

from colddiff.spec.documents import DEEPEST, DocumentError, shown, whole_number

MOST_YAML_BYTES = 1 << 20
MOST_NODES = 100_000
"""Of a document whose aliases are written out."""


def read_yaml(text: str) -> Any:
    """The value of one YAML document, as YAML 1.2 reads its plain scalars.

    ``yes``, ``on`` and ``1:30`` are text, ``true`` and ``1e-4`` are not; ``010`` is refused, which
    some read as 8 and others as 10.

    Raises DocumentError if it is not YAML, has a key twice in one mapping, is larger than 1 MiB or
    100,000 nodes with its aliases written out, or is nested deeper than 64 levels.
    """
    if len(text) > MOST_YAML_BYTES:
        raise DocumentError(f"has {len(text):,} characters, at most {MOST_YAML_BYTES:,} are read")
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        if node is None:
            return None
        _Nodes().size(node, 0)
        return loader.construct_document(node)
    except DocumentError:
        raise
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        place = f"line {mark.line + 1}: " if mark is not None else ""
        problem = error.problem or error.context or "not YAML"
        raise DocumentError(f"{place}not YAML ({problem[:200]})") from None
    except RecursionError:
        raise DocumentError(f"is nested deeper than {DEEPEST} levels") from None
    except Exception as error:  # PyYAML lets errors of int(), datetime() and others through
        known = isinstance(error, ValueError | OverflowError)
        what = " ".join(str(error).split())[:100] if known else "a tag does not fit its value"
        raise DocumentError(f"not YAML ({what or type(error).__name__})") from None


class _Nodes:
    """Counts the nodes of a YAML document with its aliases written out."""

    def __init__(self) -> None:
        self._sizes: dict[int, int] = {}
        self._open: set[int] = set()

    def size(self, node: yaml.Node, depth: int) -> int:
        """Number of nodes below and with ``node``; DocumentError if there are too many."""
        known = id(node)
        if known in self._open:
            raise DocumentError(f"{_line(node)}an anchor contains itself")
        if depth > DEEPEST:
            raise DocumentError(f"is nested deeper than {DEEPEST} levels")
        if known not in self._sizes:
            self._open.add(known)
            _refuse_same_keys(node)
            self._sizes[known] = 1 + sum(self.size(below, depth + 1) for below in _below(node))
            self._open.remove(known)
        if self._sizes[known] > MOST_NODES:
            raise DocumentError(f"has more than {MOST_NODES:,} values, its aliases written out")
        return self._sizes[known]


def _refuse_same_keys(node: yaml.Node) -> None:
    seen = set()
    for key, _ in node.value if isinstance(node, yaml.MappingNode) else ():
        if isinstance(key, yaml.ScalarNode):
            if (key.tag, key.value) in seen:
                raise DocumentError(f"{_line(key)}has the key {shown(key.value)} twice")
            seen.add((key.tag, key.value))


def _line(node: yaml.Node) -> str:
    return f"line {node.start_mark.line + 1}: "


def _below(node: yaml.Node) -> list[yaml.Node]:
    if isinstance(node, yaml.MappingNode):
        return [part for pair in node.value for part in pair]
    return list(node.value) if isinstance(node, yaml.SequenceNode) else []


class _Loader(yaml.SafeLoader):
    """Plain scalars as in YAML 1.2's core schema; the escapes of JSON, which is YAML too."""

    def construct_scalar(self, node: yaml.ScalarNode | yaml.MappingNode) -> str:
        text = super().construct_scalar(node)
        if not text.isascii():
            try:
                # JSON writes a character beyond 16 bits as two escapes, which PyYAML leaves apart.
                return text.encode("utf-16", "surrogatepass").decode("utf-16")
            except UnicodeDecodeError:
                raise DocumentError(f"{_line(node)}{shown(text)} holds half a character") from None
        return text

    def whole(self, node: yaml.ScalarNode) -> int:
        text = str(self.construct_scalar(node))
        if _OCTAL_OR_DECIMAL.fullmatch(text):
            raise DocumentError(
                f"{_line(node)}{shown(text)} is read as octal by some and as decimal by others: "
                "write it without leading zeros, or as text, in quotes"
            )
        digits = text.replace("_", "").lstrip("+-")
        base = {"0x": 16, "0o": 8, "0b": 2}.get(digits[:2].lower(), 10)
        number = whole_number(digits, base)
        return -number if text.startswith("-") else number


_Loader.yaml_implicit_resolvers = {}
_OCTAL_OR_DECIMAL = re.compile(r"[-+]?0[0-9_]+")
_TAG = "tag:yaml.org,2002:"
for _name, _pattern, _first in (
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("merge", r"<<", "<"),
    ("int", r"[-+]?(?:[0-9][0-9_]*|0x[0-9a-fA-F_]+|0o[0-7_]+|0b[01_]+)", "-+0123456789"),
    (
        "float",
        r"[-+]?(?:\.[0-9][0-9_]*|[0-9][0-9_]*\.[0-9_]*|[0-9][0-9_]*(?=[eE]))(?:[eE][-+]?[0-9]+)?"
        r"|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)",
        "-+0123456789.",
    ),
):
    _Loader.add_implicit_resolver(f"{_TAG}{_name}", re.compile(f"^(?:{_pattern})$"), list(_first))
_Loader.add_constructor(f"{_TAG}int", _Loader.whole)
