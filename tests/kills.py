"""SIGKILL for processes of one local cluster, and of no other."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from colddiff.cluster.home import ClusterRecord
from colddiff.cluster.local_cluster import MARKER
from colddiff.machine.processes import Process, marked_processes

PATIENCE_S = 900.0
"""How long a test waits for another process, which others may starve of its CPUs."""
TRAIN_WORKER = "RayTrainWorker"
DRIVER = "-m colddiff.cluster.driver"


def processes_of(record: ClusterRecord, what: str = "") -> list[Process]:
    """The cluster's processes whose command or title holds ``what``, by pid."""
    found = marked_processes(f"{MARKER}={record.session}", record.pid)
    return sorted((item for item in found if what in item.command), key=lambda item: item.pid)


def kill(pids: list[int]) -> None:
    """SIGKILL; those that are gone already are no error."""
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def kill_cluster(record: ClusterRecord) -> None:
    """All of it at once, as when a machine loses power, until nothing is left."""
    while found := processes_of(record):
        kill([item.pid for item in found])
        time.sleep(0.1)


def upload_under_way(checkpoints: Path) -> Path | None:
    """The folder of a checkpoint that is being written now: there, and without its commit."""
    with suppress(FileNotFoundError):
        for folder in checkpoints.iterdir():
            names = {path.name for path in folder.iterdir()}
            if names and "checkpoint.json" not in names:
                return folder
    return None


def wait_until(look: Callable[[], object], what: str, *, every_s: float = 0.05) -> None:
    """Returns once ``look()``, asked every ``every_s`` seconds, is true."""
    deadline = time.monotonic() + PATIENCE_S
    while not look():
        if time.monotonic() > deadline:
            raise AssertionError(f"{what}: not in {PATIENCE_S:.0f} s")
        time.sleep(every_s)
