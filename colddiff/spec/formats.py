"""Formats of records: a later one is refused by naming the version of colddiff to install.

A record that an older version must not read has a later ``format``, and under ``colddiff`` the
first version that reads it: every later version of this project writes both.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from colddiff import __version__
from colddiff.spec.documents import DocumentError, shown

_NUMBERED = re.compile(r"(.*?)([0-9]{1,9})")
_VERSION = re.compile(r"[0-9]{1,4}\.[0-9]{1,4}(\.[0-9]{1,4})?")


class LaterRecord(DocumentError):
    """A record of a later format than this version reads."""


def refuse_later(record: Mapping[str, Any], known: str | int | None) -> None:
    """Raises LaterRecord if ``record`` is of a later format than ``known`` (None: of none).

    >>> refuse_later({"format": "colddiff-shards/2", "colddiff": "0.3"}, "colddiff-shards/1")
    Traceback (most recent call last):
    colddiff.spec.formats.LaterRecord: is of format 'colddiff-shards/2', which colddiff 0.1.0
    cannot read: install colddiff>=0.3
    """
    found = record.get("format")
    if found is None or not _is_later(found, known):
        return
    needs = record.get("colddiff")
    named = isinstance(needs, str) and _VERSION.fullmatch(needs)
    way = f"install colddiff>={needs}" if named else "install the version that wrote it"
    raise LaterRecord(
        f"is of format {shown(found)}, which colddiff {__version__} cannot read: {way}"
    )


def later_version(versions: object) -> str:
    """What to add to an error about a record whose ``versions`` are those of a later minor one."""
    wrote = versions.get("colddiff") if isinstance(versions, Mapping) else None
    if not (isinstance(wrote, str) and _VERSION.fullmatch(wrote)):
        return ""
    if _minor(wrote) <= _minor(__version__):
        return ""
    return f"; colddiff {wrote} wrote it, this is {__version__}: install colddiff>={wrote}"


def _is_later(found: object, known: str | int | None) -> bool:
    if known is None:
        return isinstance(found, str) and found.startswith("colddiff-")
    if isinstance(known, int):
        return isinstance(found, int) and not isinstance(found, bool) and found > known
    ours = _NUMBERED.fullmatch(known)
    theirs = _NUMBERED.fullmatch(found) if isinstance(found, str) else None
    assert ours is not None
    return theirs is not None and theirs[1] == ours[1] and int(theirs[2]) > int(ours[2])


def _minor(version: str) -> tuple[int, ...]:
    return tuple(map(int, version.split(".")[:2]))
