"""Output of commands: data on stdout, messages on stderr."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from colddiff.printable import printable

LINES = "\n\t"
"""What text of several lines is made of."""


def emit(line: str) -> None:
    """Print a line of data on stdout, flushed, so that the reader of a pipe gets it immediately."""
    sys.stdout.write(f"{printable(line, keep=LINES)}\n")
    sys.stdout.flush()


def emit_json(data: Mapping[str, Any] | Sequence[Any]) -> None:
    """Print data on stdout as one line of JSON."""
    emit(json.dumps(data, sort_keys=True, default=str))


def note(line: str) -> None:
    """Print a message for the user on stderr."""
    sys.stderr.write(f"{printable(line, keep=LINES)}\n")
    sys.stderr.flush()


def emit_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print rows on stdout in aligned columns."""
    lines = [list(header), *(list(row) for row in rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(header))]
    for line in lines:
        cells = [cell.ljust(width) for cell, width in zip(line, widths, strict=True)]
        emit("  ".join(cells).rstrip())
