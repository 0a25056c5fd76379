"""Text of others on a terminal: control characters and broken text as escapes."""

from __future__ import annotations

import re

_HARMFUL = re.compile(
    "[\x00-\x1f\x7f-\x9f"  # control characters, which move the cursor or set a title
    "\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069"  # line breaks, and changes of direction
    "\ud800-\udfff]"  # bytes of a file name that are no text
)


def printable(text: str, *, keep: str = "") -> str:
    """``text`` with what could harm a terminal as escapes such as ``\\x1b``, except in ``keep``.

    >>> printable("a\\x1b[31mb")
    'a\\\\x1b[31mb'
    """
    return _HARMFUL.sub(lambda found: found[0] if found[0] in keep else _escaped(found[0]), text)


def _escaped(character: str) -> str:
    code = ord(character)
    return f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}"
