"""What a command passed over, and why: counts and first names, for a person and a manifest."""

from __future__ import annotations

import threading
from bisect import insort
from collections.abc import Mapping, Sequence
from typing import Any

FIRST = 5
UNREAD = "images of a format that is not read"
ALPHA = "the alpha of images with transparency"
FRAMES = "images whose further pages or frames are not read"

WAYS_OUT = {UNREAD: ", convert them to JPEG or PNG first, such as with ImageMagick"}
"""By reason, what to do about it; said to a person, and not kept in a manifest."""


class LeftOut:
    """Counts of what was left out by reason, with the first names; safe to share between threads.

    Its content does not depend on the order in which things were added.
    """

    def __init__(self) -> None:
        self._found: dict[str, tuple[int, list[str]]] = {}
        self._lock = threading.Lock()

    def add(self, why: str, name: str) -> None:
        """One thing, called ``name``, that was left out because of ``why`` (a plural noun)."""
        shown = name.encode("utf-8", "backslashreplace").decode()
        with self._lock:
            count, first = self._found.get(why, (0, []))
            insort(first, shown)
            self._found[why] = count + 1, first[:FIRST]

    def to_list(self) -> list[dict[str, Any]]:
        """JSON-ready: ``why``, ``count`` and the ``first`` names, by reason."""
        with self._lock:
            return [
                {"why": why, "count": count, "first": list(first)}
                for why, (count, first) in sorted(self._found.items())
            ]

    def __bool__(self) -> bool:
        return bool(self._found)

    def __str__(self) -> str:
        return "; ".join(left_out_lines(self.to_list()))


def left_out_lines(found: Sequence[Mapping[str, Any]]) -> list[str]:
    """A line for each reason of ``LeftOut.to_list``: ``hidden files: 2 (.a.png, .b.png)``."""
    lines = []
    for reason in found:
        names = [str(name) for name in reason["first"]]
        more = ", ..." if reason["count"] > len(names) else ""
        way_out = WAYS_OUT.get(reason["why"], "")
        lines.append(f"{reason['why']}: {reason['count']} ({', '.join(names)}{more}){way_out}")
    return lines
