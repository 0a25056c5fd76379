"""Words of messages that depend on a number."""

from __future__ import annotations


def counted(count: float, noun: str, form: str = "") -> str:
    """``count`` with its noun, in the plural unless it is one.

    Args:
        count: how many there are.
        noun: in the singular, with a regular plural.
        form: how the number is written, as in ``format``.

    >>> counted(1, "image"), counted(0, "image"), counted(12345, "network call", ",")
    ('1 image', '0 images', '12,345 network calls')
    """
    return f"{count:{form}} {noun}{'s' * (count != 1)}"
