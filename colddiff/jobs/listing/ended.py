"""``ended/<id>.json``: what a list shows of a job that has ended; empty until then.

One listing of ``ended/`` tells which jobs of a storage have changed since an earlier one, so that
a list need not read each job. The mark is always behind the truth or equal to it, whoever writes
at the same time: an attempt empties it before and after the first status that it writes, and who
writes a final status then writes the mark, and empties it if that status is there no more.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from colddiff.errors import ColddiffError, Missing
from colddiff.ports import Store, StoredObject
from colddiff.spec.documents import DocumentError, read_json_object

PREFIX = "ended/"
SUFFIX = ".json"
KEPT = ("slug", "created", "spec")
"""What a list needs of ``job.json``."""
AGAIN_S = 60.0
"""How often an attempt that runs says again that it has not ended."""


def mark_key(job_id: str) -> str:
    """The key of the mark of a job."""
    return f"{PREFIX}{job_id}{SUFFIX}"


class EndedMark:
    """Writes the mark of one job around the writes of its status."""

    def __init__(self, store: Store, job_id: str) -> None:
        self._store, self._key = store, mark_key(job_id)
        self._job = f"jobs/{job_id}/job.json"
        self._open: tuple[int, float] | None = None

    def write(self, key: str, status: bytes, attempt: int, *, settled: bool) -> None:
        """Writes ``status``, of ``attempt``, to ``key``, and the mark as it takes."""
        if settled:
            self._store.put(key, status)
            self._store.put(self._key, self._row(status))
            self._open = None
            if self._is_other(key, status):
                self._store.put(self._key, b"")
            return
        known = self._open is not None and self._open[0] == attempt
        due = not known or time.monotonic() - (self._open or (0, 0.0))[1] > AGAIN_S
        if not known:
            self._store.put(self._key, b"")
        self._store.put(key, status)
        if due:
            self._store.put(self._key, b"")
            self._open = attempt, time.monotonic()

    def _is_other(self, key: str, status: bytes) -> bool:
        try:
            return self._store.get(key) != status
        except Missing:  # deleted meanwhile
            return True

    def _row(self, status: bytes) -> bytes:
        """What the mark says of a job that has ended; empty if its ``job.json`` is unreadable."""
        with suppress(Missing, DocumentError):
            job = read_json_object(self._store.get(self._job))
            kept = {name: job[name] for name in KEPT if name in job}
            return json.dumps({"status": json.loads(status), "job": kept}).encode()
        return b""


def read_mark(store: Store, job_id: str) -> Mapping[str, Any] | None:
    """``{status, job}`` of a job that has ended; None if it has not, or the mark is damaged."""
    try:
        found = read_json_object(store.get(mark_key(job_id)))
    except (Missing, DocumentError):
        return None
    whole = isinstance(found.get("status"), dict) and isinstance(found.get("job"), dict)
    return found if whole else None


def marks(store: Store) -> dict[str, str]:
    """Versions of the marks of all jobs that have ended, by id."""
    return {job_id: item.version for job_id, item in marked(store).items() if item.version}


def marked(store: Store, ids: str = "") -> dict[str, StoredObject]:
    """The marks of the jobs that have ended and whose id starts with ``ids``, by id."""
    return {
        item.key.removeprefix(PREFIX).removesuffix(SUFFIX): item
        for item in store.list(f"{PREFIX}{ids}")
        if item.size
    }


def delete_mark(store: Store, job_id: str) -> None:
    """Deletes the mark of a deleted job, or empties it where only that is permitted."""
    with suppress(ColddiffError):
        store.put(mark_key(job_id), b"")
        store.delete(mark_key(job_id))
