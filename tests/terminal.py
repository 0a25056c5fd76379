"""What programs print where their stream is a terminal."""

from __future__ import annotations

import os
from contextlib import suppress


def read_to_its_end(terminal: int) -> str:
    """What programs that have ended wrote, which arrives in pieces; closes ``terminal``.

    That is our end of a pseudo-terminal, whose other end is closed.
    """
    found = b""
    with suppress(OSError):  # Linux's end of a terminal
        while piece := os.read(terminal, 65536):
            found += piece
    os.close(terminal)
    return found.decode()
