"""Tables that a verb has written as Markdown, such as a leaderboard, as parts of a page."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

BOLD = re.compile(r"\*\*(.*?)\*\*")
RULE = re.compile(r"\|[\s:|-]+\|")


@dataclass(slots=True)
class WrittenBlock:
    """A table or a paragraph; ``marked`` are the numbers of rows that are bold."""

    head: list[str] = field(default_factory=list)
    rows: list[list[str]] = field(default_factory=list)
    marked: list[int] = field(default_factory=list)
    text: str = ""


def blocks_of(markdown: str) -> list[WrittenBlock]:
    """The pipe tables and paragraphs of ``markdown``, in order; other marks stay as they are."""
    found: list[WrittenBlock] = []
    table: WrittenBlock | None = None
    for line in markdown.splitlines():
        if not line.startswith("|"):
            table = None
            if line.strip():
                found.append(WrittenBlock(text=_plain(line)))
            continue
        if RULE.fullmatch(line.strip()):
            continue
        cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", line.strip())[1:-1]]
        if table is None:
            table = WrittenBlock(head=[_plain(cell) for cell in cells])
            found.append(table)
            continue
        if all(BOLD.fullmatch(cell) for cell in cells if cell):
            table.marked.append(len(table.rows))
        table.rows.append([_plain(cell) for cell in cells])
    return found


def title_of(name: str) -> str:
    """A heading for a file: ``leaderboard.md`` is ``Leaderboard``."""
    return name.removesuffix(".md").replace("_", " ").capitalize()


def written_parts(files: Sequence[tuple[str, str]]) -> list[tuple[str, list[WrittenBlock]]]:
    """(heading, blocks) of files by name and content."""
    return [(title_of(name), blocks_of(text)) for name, text in files]


def _plain(text: str) -> str:
    return BOLD.sub(r"\1", text).replace(r"\|", "|").removeprefix("### ")
