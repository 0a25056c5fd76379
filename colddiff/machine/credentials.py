"""Addresses as they may be shown: without the credentials in them."""

from __future__ import annotations

import re

SENSITIVE = r"(?i)\b(password|passwd|token|secret|signature)="
"""How a part of a query that is a credential begins."""
_USERINFO = re.compile(r"(?<=://)[^/\s'\"]*@")
_SENSITIVE_QUERY = re.compile(SENSITIVE + r"[^&\s'\"]+")


def masked(text: str) -> str:
    """``text`` with the credentials of any URL in it replaced by ``***``.

    >>> masked("no answer from http://ada:s3cr3t@host:5000?token=abc&x=1")
    'no answer from http://***@host:5000?token=***&x=1'
    """
    return _SENSITIVE_QUERY.sub(r"\1=***", _USERINFO.sub("***@", text))
