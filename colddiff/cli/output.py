"""Output of commands: data on stdout, messages on stderr."""

from __future__ import annotations

import json
import sys
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from typing import Any


def printable(text: str) -> str:
    """``text`` without control characters: one that others wrote must not steer the terminal."""
    if text.isprintable():
        return text
    return "".join(
        character
        if character in "\n\t" or unicodedata.category(character)[0] != "C"
        else ascii(character)[1:-1]
        for character in text
    )


def emit(line: str) -> None:
    """Print a line of data on stdout, flushed, so that the reader of a pipe gets it immediately."""
    sys.stdout.write(f"{printable(line)}\n")
    sys.stdout.flush()


def emit_json(data: Mapping[str, Any] | Sequence[Any]) -> None:
    """Print data on stdout as one line of JSON."""
    emit(json.dumps(data, sort_keys=True, default=str))


def note(line: str) -> None:
    """Print a message for the user on stderr."""
    sys.stderr.write(f"{printable(line)}\n")
    sys.stderr.flush()


def emit_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print rows on stdout in aligned columns."""
    lines = [list(header), *(list(row) for row in rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(header))]
    for line in lines:
        cells = [cell.ljust(width) for cell, width in zip(line, widths, strict=True)]
        emit("  ".join(cells).rstrip())


def one_line(text: str) -> str:
    """``text`` with line breaks and tabs as escapes: a name of others stays on its line."""
    return text.replace("\n", "\\n").replace("\r", "\\r").replace("\t", "\\t")
