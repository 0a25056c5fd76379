"""The two streams of a command: data on stdout, talk on stderr."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any


def emit(line: str) -> None:
    """A line of data on stdout, at once: whoever reads the pipe may act on it before the end."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def emit_json(data: Mapping[str, Any] | Sequence[Any]) -> None:
    """Data on stdout as one line of JSON."""
    emit(json.dumps(data, sort_keys=True, default=str))


def talk(line: str) -> None:
    """A line for the person at the terminal, on stderr."""
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()


def emit_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Rows on stdout in aligned columns; the last column is as wide as it is."""
    lines = [list(header), *(list(row) for row in rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(header))]
    for line in lines:
        cells = [cell.ljust(width) for cell, width in zip(line, widths, strict=True)]
        emit("  ".join(cells).rstrip())
