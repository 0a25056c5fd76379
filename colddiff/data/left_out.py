"""What a command passed over or altered, and why: counts and first names, for a person."""

from __future__ import annotations

import re
import threading
from bisect import insort
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from colddiff.machine.wording import counted

FIRST = 5
MOST_REASONS = 8
UNREAD = "images of a format that is not read"
ALPHA = "the alpha of images with transparency"
FRAMES = "images whose further pages or frames are not read"
DEEP = "is a 16-bit image"
"""Of an image that is skipped, why."""

WAYS_OUT = {
    UNREAD: ", convert them to JPEG or PNG first, such as with ImageMagick",
    DEEP: ", which `colddiff data pack --bits 8` converts",
}
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


def skipped_line(skipped: Sequence[tuple[str, str]]) -> str:
    """A line about (name, why) of images that were skipped, by reason, the most frequent first.

    >>> found = [(f"{n}.png", f"/x/{n}.png: cannot be decoded (at {n}); damaged") for n in "ab"]
    >>> skipped_line([("c.jpg", "c.jpg: is a folder"), *found])
    'images that cannot be packed: 3 (cannot be decoded: 2, such as a.png; is a folder: c.jpg)'
    """
    by_reason: dict[str, list[str]] = {}
    for name, why in skipped:
        # Without the name, details in brackets, and the way out.
        reason = re.sub(r" \([^()]*\)", "", why.partition(f"{name}: ")[2] or why).partition(";")[0]
        by_reason.setdefault(reason, []).append(name)
    groups = sorted(by_reason.items(), key=lambda item: -len(item[1]))
    shown = [
        f"{reason}: {names[0] if len(names) == 1 else f'{len(names)}, such as {names[0]}'}"
        f"{WAYS_OUT.get(reason, '')}"
        for reason, names in groups[:MOST_REASONS]
    ]
    if more := sum(len(names) for _, names in groups[MOST_REASONS:]):
        shown.append(f"and {more} more")
    return f"images that cannot be packed: {len(skipped)} ({'; '.join(shown)})"


@dataclass(frozen=True, slots=True)
class Altered:
    """Images that a run of packing stored as less, or more, than they were."""

    grey: int = 0
    """Grey images in three equal channels, in a set of colour images."""
    transparent: int = 0
    """Images without their alpha."""
    reduced: int = 0
    """16-bit images in 8 bits."""
    enlarged: tuple[str, ...] = ()
    """Names, in packing order, of images smaller than ``size``."""
    size: int | None = None
    """The side to which images were resized, px."""


def altered_lines(found: Iterable[Altered]) -> list[str]:
    """A line for each way in which images were altered, of several sets together.

    >>> altered_lines([Altered(grey=1), Altered(enlarged=("a.png",), size=32)])
    ['1 grey image is stored with three equal channels, as in a set in colour', \
'1 image is smaller than 32 px and was enlarged: a.png']
    """
    sets, lines = list(found), []
    if grey := sum(of.grey for of in sets):
        images = "image is" if grey == 1 else "images are"
        lines.append(
            f"{grey} grey {images} stored with three equal channels, as in a set in colour"
        )
    if reduced := sum(of.reduced for of in sets):
        images = "image was" if reduced == 1 else "images were"
        lines.append(f"{reduced} 16-bit {images} converted to 8 bits")
    if transparent := sum(of.transparent for of in sets):
        lines.append(
            f"{counted(transparent, 'image')} with transparency: "
            f"{'its' if transparent == 1 else 'their'} alpha is dropped, and what it hid is shown; "
            "put such images on a background first if that matters"
        )
    if names := [name for of in sets for name in of.enlarged]:
        size = next(of.size for of in sets if of.enlarged)
        one = len(names) == 1
        name = names[0].encode("utf-8", "backslashreplace").decode()
        lines.append(
            f"{len(names)} image{' is' if one else 's are'} smaller than {size} px and "
            f"{'was' if one else 'were'} enlarged{': ' if one else ', such as '}{name}"
        )
    return lines
