"""What a kill costs a training on a warm local cluster, and what snapshots cost it otherwise."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from colddiff.cluster import local_cluster
from colddiff.cluster.home import ClusterRecord, Home
from colddiff.jobs.folder import JobFolder, list_jobs
from colddiff.stores.local_store import LocalStore
from tests.kills import DRIVER, TRAIN_WORKER, kill, processes_of, wait_until

JOB = ("quickstart", "num_steps=100000", "checkpoint_every=100000", "log_every=1")
GLOBAL_BATCH = 64
TRAINED_S = 10.0
"""Between two kills."""


def measure(repeats: int) -> list[dict[str, Any]]:
    """The quickstart's training by two workers, with no checkpoint ever: only its snapshots."""
    with tempfile.TemporaryDirectory(prefix="cdk-", dir="/tmp") as name:  # a short path for Ray
        home = Home(Path(name) / "home")
        home.make()
        local_cluster.start(home)
        record = home.record()
        assert record is not None
        try:
            with _submitted(Path(name)) as folder:
                rows = [_killed(folder, record, TRAIN_WORKER, 1) for _ in range(repeats)]
                # It dies with its workers, and the same submission is made again.
                _train(folder, 1)
                before, began = _step(folder, 1), time.perf_counter()
                kill([item.pid for item in processes_of(record, DRIVER)])
            with _submitted(Path(name)) as folder:
                driver = _costs(folder, 2, before, began)
        finally:
            local_cluster.stop(home)
    whats = ["a worker killed (median)", "the driver killed, submitted again"]
    workers = {key: statistics.median(row[key] for row in rows) for key in rows[0]}
    return [
        {"": what, **row, "goals": "10 s, 5 s" if row is workers else "30 s, 5 s"}
        for what, row in zip(whats, (workers, driver), strict=True)
    ]


def _killed(folder: JobFolder, record: ClusterRecord, what: str, attempt: int) -> dict[str, float]:
    _train(folder, attempt)
    before, began = _step(folder, attempt), time.perf_counter()
    kill([processes_of(record, what)[0].pid])
    return _costs(folder, attempt, before, began)


def _train(folder: JobFolder, attempt: int) -> None:
    first = _step(folder, attempt)
    wait_until(lambda: _step(folder, attempt) > first, "a step")
    time.sleep(TRAINED_S)


def _costs(folder: JobFolder, attempt: int, before: int, began: float) -> dict[str, float]:
    """Of the kill at ``began``, after step ``before``: read off at the next start's first step.

    Progress is written once a second: up to a second more was lost, and passed.
    """
    starts = len(folder.fencing_tokens(attempt)) if attempt in folder.attempts() else 0
    wait_until(lambda: len(folder.fencing_tokens(attempt)) > starts, "the next start")
    token = folder.fencing_tokens(attempt)[-1]
    wait_until(lambda: "step" in folder.fence(attempt, token), "its first step")
    step = int(folder.fence(attempt, token)["step"])

    def stepped() -> bool:
        # Until it has made one, the driver says that it restarts the workers, and no rate.
        found = folder.progress(attempt)
        return "images_per_s" in found and step < int(found["step"]) != before

    wait_until(stepped, "a step of it", every_s=0.02)
    took = time.perf_counter() - began
    step_s = GLOBAL_BATCH / float(folder.progress(attempt)["images_per_s"])
    lost = before - step
    return {"next step after, s": took, "steps lost": lost, "work lost, s": lost * step_s}


def _step(folder: JobFolder, attempt: int) -> int:
    return int(folder.progress(attempt).get("step", 0))


@contextmanager
def _submitted(root: Path) -> Iterator[JobFolder]:
    """The job, while a client follows it."""
    store = LocalStore(root / "runs")
    client = subprocess.Popen(
        [sys.executable, "-m", "colddiff.cli.main", "submit", "train", *JOB],
        env={
            **os.environ,
            "COLDDIFF_HOME": str(root / "home"),
            "COLDDIFF_STORAGE": str(root / "runs"),
        },
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_until(lambda: list_jobs(store) or client.poll() is not None, "the job")
        yield JobFolder(store, list_jobs(store)[0])
    finally:
        client.kill()
        client.wait()
