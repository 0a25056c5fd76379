"""Output of commands: data on stdout, messages on stderr."""

from __future__ import annotations

import json
import os
import shutil
import sys
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from itertools import zip_longest
from typing import Any

from colddiff.errors import printable

GAP = "  "
INDENT = "    "
LEAST_WIDTH = 40
"""Columns that are written for, however few a terminal claims to have."""
LEAST_TEXT = 36
"""Columns in which text still reads well."""
HARD_SPACE = "\N{NO-BREAK SPACE}"
"""Where no line is broken."""


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


def note_loading() -> None:
    """Say on a terminal that PyTorch is loaded, which takes seconds; not in a log."""
    if not sys.stderr.isatty():
        return
    line = "loading PyTorch ..."
    sys.stderr.write(f"{line}\n" if os.environ.get("NO_COLOR") else f"\x1b[2m{line}\x1b[0m\n")
    sys.stderr.flush()


def emit_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print rows on stdout in aligned columns; where a terminal is too narrow, see ``table``."""
    for line in table(header, rows, terminal_width()):
        emit(line)


def emit_text(text: str) -> None:
    """Print a sentence on stdout, broken between words where a terminal is too narrow for it."""
    width = terminal_width()
    for line in [text] if width is None else _folded(text, width) or [""]:
        emit(line)


def terminal_width() -> int | None:
    """Columns of the terminal that stdout is; None where it is a file or a pipe."""
    if not sys.stdout.isatty():
        return None
    return max(shutil.get_terminal_size().columns, LEAST_WIDTH)


def table(
    header: Sequence[str], rows: Iterable[Sequence[str]], width: int | None = None
) -> list[str]:
    """Rows as lines in aligned columns, within ``width`` characters if that is given.

    If they are wider, the text of the widest column is broken between words; where too little
    room would be left for it, each row stands by itself: its first cell, the text of a column
    without a heading, and below them the other cells that hold something, by heading.
    """
    cells = [list(header), *(list(row) for row in rows)]
    widths = [max(len(line[i]) for line in cells) for i in range(len(header))]
    needed = sum(widths) + len(GAP) * (len(widths) - 1)
    if width is None or needed <= width:
        return [line for row in cells for line in _aligned(row, widths)]
    widest = max(range(len(widths)), key=widths.__getitem__)
    room = widths[widest] - (needed - width)
    if room >= LEAST_TEXT:
        widths[widest] = room
        return [line for row in cells for line in _aligned(row, widths)]
    return [line for row in cells[1:] for line in _stacked(header, row, width)]


def _aligned(row: Sequence[str], widths: Sequence[int]) -> list[str]:
    """One row as lines: as many as its longest cell takes in its column."""
    parts = [
        [cell] if len(cell) <= width else _folded(cell, width)
        for cell, width in zip(row, widths, strict=True)
    ]
    return [
        GAP.join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in zip_longest(*parts, fillvalue="")
    ]


def _stacked(header: Sequence[str], row: Sequence[str], width: int) -> list[str]:
    named = list(zip(header, row, strict=True))[1:]
    title = GAP.join([row[0], *(cell for name, cell in named if cell and not name)])
    rest = [f"{name.lower()} {cell}" for name, cell in named if cell and name]
    kept = [cell.replace(" ", HARD_SPACE) if len(cell) <= width // 2 else cell for cell in rest]
    below = _folded("; ".join(kept), width, INDENT, first=INDENT)
    return [*_folded(title, width, INDENT), *(line.replace(HARD_SPACE, " ") for line in below)]


def _folded(text: str, width: int, indent: str = "", first: str = "") -> list[str]:
    """``text`` as lines of at most ``width``, broken between words; a longer word stays whole."""
    return textwrap.wrap(
        text,
        width,
        initial_indent=first,
        subsequent_indent=indent,
        break_long_words=False,
        break_on_hyphens=False,
    )


def one_line(text: str) -> str:
    """``text`` with line breaks and tabs as escapes: a name of others stays on its line."""
    return text.replace("\n", "\\n").replace("\r", "\\r").replace("\t", "\\t")
