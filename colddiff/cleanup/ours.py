"""Which objects of a STORAGE colddiff itself has made, by their names: only those are deleted."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

from colddiff.ports import Store, StoredObject
from colddiff.stores.local_store import LocalStore

_HEX = "[0-9a-f]{32}"
PROBE = re.compile(f"probes/{_HEX}")
TEMPORARY = re.compile(rf"(?:.*/)?\.tmp-{_HEX}")
SHARD = re.compile(r"shard-[0-9]{6,}\.tar")
STAGING = re.compile(r"colddiff-stage-[a-z0-9_]{8}")
CLAIMED = re.compile(r"attempts/[0-9]{1,18}/(?:claim|stop)\.json")
"""Below a job's folder: of an attempt that no driver has begun."""
ATTEMPTED = re.compile(
    r"status\.json|attempts/[0-9]{1,18}/(?:(?:claim|stop|progress|reports|outcome)\.json"
    r"|(?:log|debug)\.txt|starts/[0-9]+\.json|stacks/[0-9]+-[0-9]+\.txt)"
)
"""Below a job's folder: of attempts, whether or not they have begun."""
RESULT = re.compile(r"result\.json|checkpoints/step_[0-9]{8,}/.+|evaluations/step_[0-9]{8,}\..+")
"""Below a job's folder: of a job that has got somewhere."""
CHECKPOINT_FILE = re.compile(r"[a-z_]+(?:\.[A-Za-z0-9_-]+)*\.(?:safetensors|json)")
RAY_STATE = re.compile(r"ray/(.+)-[0-9]+-[0-9]+/.+")
"""Below a job's folder: of Ray Train, in folders ``<job id>-<attempt>-<number>``."""
RESERVED = re.compile(r"ray/reserved/train-[0-9a-f]{32}")
"""Below a job's folder: the note of a start that its workers' machines were reserved for."""


def linked(store: Store, key: str) -> bool:
    """Whether ``key`` is a link, or lies in a folder that is one: it may be elsewhere.

    The root of the store itself may be a link.
    """
    if not isinstance(store, LocalStore):
        return False
    parts = PurePosixPath(key).parts
    return any(
        (store.root / Path(*parts[:count])).is_symlink() for count in range(1, len(parts) + 1)
    )


def unlinked(store: Store, objects: Iterable[StoredObject]) -> list[StoredObject]:
    """``objects`` without those that are reached through a link."""
    return [item for item in objects if not linked(store, item.key)]
