"""What the ids of jobs look like: ``<verb>-<slug>-<8 hex>``."""

from __future__ import annotations

import re

NAMELESS = "job"
"""Word in the id of a job without a name, as of `submit train key=value`."""
JOB_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,200}")
"""What may be an id, or the beginning of one; those of old runs, too."""
HASH = "[0-9a-f]{8}"
"""Pattern of the last word: of all that decides what the job computes."""
_HASH_DIGITS = 8
_BETWEEN = re.compile(r"[^a-z0-9]+")
_WHOLE = re.compile(rf".+-({HASH})")


def slugify(text: str) -> str:
    """``text`` in ``[a-z0-9-]``, at most 40 characters."""
    return _BETWEEN.sub("-", text.lower()).strip("-")[:40].strip("-") or NAMELESS


def id_of(verb: str, name: str, digest: str) -> str:
    """The id of a job.

    >>> id_of("train", "My faces", "0123abcd4567")
    'train-my-faces-0123abcd'
    """
    return f"{verb}-{slugify(name)}-{digest[:_HASH_DIGITS]}"


def hash_of(name: str) -> str | None:
    """The last word of an id; None where ``name`` does not end like one.

    A slug may end so, too.

    >>> hash_of("train-faces-0123abcd"), hash_of("train-faces")
    ('0123abcd', None)
    """
    found = _WHOLE.fullmatch(name)
    return found[1] if found else None


def slug_of(job_id: str) -> str:
    """The words between the verb and the hash.

    >>> slug_of("train-my-faces-0123abcd")
    'my-faces'
    """
    behind = job_id.partition("-")[2]
    return behind[: -_HASH_DIGITS - 1] if hash_of(behind) else behind
