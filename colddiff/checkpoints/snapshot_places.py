"""Where snapshots lie in this machine's memory, and of which jobs; found without torch."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from colddiff.machine.processes import process
from colddiff.spec.documents import DocumentError, read_json_object

MEMORY = Path("/dev/shm")  # noqa: S108  # the folder in it is checked to be this user's alone
"""Files here live in memory, and outlive the process that wrote them."""
RECORD = "job.json"
"""In the folder of each job's snapshots: whose they are, and who writes them."""


@dataclass(frozen=True, slots=True)
class SnapshotPlace:
    """The folder of one job's snapshots."""

    path: Path

    def record(self, job: str) -> None:
        """Notes that they are of ``job`` (its folder's address), and that this process runs."""
        (self.path / RECORD).write_text(json.dumps({"job": job, "pid": os.getpid()}))

    @property
    def job(self) -> str | None:
        """Address of the job's folder; None where nothing, or nothing that fits, says so."""
        job = self._recorded().get("job")
        return job if isinstance(job, str) and place_of(job) == self else None

    @property
    def in_use(self) -> bool:
        """Whether the process that made them still runs (or another one has its number)."""
        pid = self._recorded().get("pid")
        return isinstance(pid, int) and process(pid) is not None

    @property
    def written(self) -> float:
        """When something in it was written last, by this machine's clock; OSError if it is gone."""
        return max(path.stat().st_mtime for path in (self.path, *self.path.rglob("*")))

    def forget(self) -> None:
        """Deletes it, as far as that is possible."""
        shutil.rmtree(self.path, ignore_errors=True)

    def _recorded(self) -> dict[str, Any]:
        with suppress(OSError, DocumentError):
            return read_json_object((self.path / RECORD).read_bytes())
        return {}


def own_folder() -> Path:
    """Where this user's snapshots are."""
    return MEMORY / f"colddiff-{os.getuid()}"


def is_private(folder: Path) -> bool:
    """Whether it is there and nobody else may write into it: the parent is shared."""
    try:
        found = folder.lstat()
    except OSError:
        return False
    private = stat.S_ISDIR(found.st_mode) and not found.st_mode & 0o077
    return private and found.st_uid == os.getuid()


def place_of(job: str) -> SnapshotPlace:
    """Where the snapshots of ``job`` are, or would be."""
    return SnapshotPlace(own_folder() / hashlib.sha256(job.encode()).hexdigest()[:24])


def all_places() -> Iterator[SnapshotPlace]:
    """Those of all jobs of this user that have left any on this machine."""
    if is_private(own_folder()):
        yield from map(SnapshotPlace, sorted(own_folder().iterdir()))


def forget_job(job: str) -> None:
    """Deletes what a job that is deleted left on this machine."""
    place = place_of(job)
    if is_private(own_folder()) and place.path.is_dir() and not place.in_use:
        place.forget()
