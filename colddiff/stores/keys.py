"""Keys of a store: relative paths with ``/``, the same on a disk, in S3 and in memory.

The rules are those of keys that we choose. An object that is listed is read by the key it has.
"""

from __future__ import annotations

from colddiff.errors import SpecError
from colddiff.ports import ListedKey

TEMPORARY = ".tmp-"
"""Prefix of temporary names on a disk, for objects that are not committed yet."""


def checked_key(key: str) -> str:
    """``key`` if it is valid; raises SpecError.

    No empty, ``.`` or ``..`` part, no leading slash, backslash or control character: such keys
    could escape the store's root on a disk, or name another object in S3 than on a disk. A key
    that a listing returned is valid as it is.
    """
    if isinstance(key, ListedKey):
        return key
    problem = _problem(key, key.split("/"))
    if problem:
        raise SpecError(f"store key {key!r}: {problem}")
    return key


def below_root(key: str) -> str:
    """``key`` if its path on a disk is below the root, whatever listed it; raises SpecError."""
    if key.startswith("/") or ".." in key.split("/") or "\0" in key:
        raise SpecError(f"store key {key!r}: is not below the folder")
    return checked_key(key)


def checked_prefix(prefix: str) -> str:
    """``prefix`` if a valid key can start with it (its last part may be incomplete); SpecError."""
    if prefix:
        checked_key(prefix.removesuffix("/") + "x")
    return prefix


def _problem(key: str, parts: list[str]) -> str | None:
    if key.startswith("/"):
        return "must be relative, without a leading slash"
    if "\\" in key:
        return "must use /, not backslash"
    if any(ord(character) < 32 or ord(character) == 127 for character in key):
        return "must not contain control characters"
    if not all(parts) or any(part in (".", "..") for part in parts):
        return "must be non-empty parts joined by single slashes, none of them . or .."
    if any(part.startswith(TEMPORARY) for part in parts):
        return f"names that start with {TEMPORARY} are reserved for writes in progress"
    try:
        key.encode()
    except UnicodeEncodeError:
        return "must be encodable in UTF-8"
    return None
