"""Checkpoints that jobs of a STORAGE name: they are kept, whatever the policy."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

_ADDRESS = re.compile(r"(?:^|/)jobs/([^/]+)/checkpoints/step_(\d{8,})")
_AT_STEP = re.compile(r"([A-Za-z0-9][A-Za-z0-9._-]*)(?:/checkpoints)?/?@step=(\d+)")

Step = tuple[str, int]
"""(id of the job that took it, step) of a checkpoint."""


def named_steps(documents: Iterable[Mapping[str, Any]]) -> set[Step]:
    """Checkpoints that any text in ``documents`` names, by address or as ``JOB@step=N``.

    The storage in an address is not compared: it may be a link, or have been moved.

    >>> sorted(named_steps([{"checkpoint": "s3://b/runs/jobs/train-a-1/checkpoints/step_00000020"},
    ...                     {"base": {"checkpoint": "train-a-1@step=40"}}]))
    [('train-a-1', 20), ('train-a-1', 40)]
    """
    found: set[Step] = set()
    for document in documents:
        for text in texts(document):
            for pattern in (_ADDRESS, _AT_STEP):
                found |= {(job, int(step)) for job, step in pattern.findall(text)}
    return found


def texts(value: Any) -> Iterator[str]:
    """Every text within JSON data, names of fields left out."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for inner in value.values():
            yield from texts(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from texts(inner)
