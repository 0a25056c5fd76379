"""From `colddiff submit` to the first step and to the end, by part, on a warm local cluster."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

from colddiff.cluster import local_cluster
from colddiff.cluster.home import Home
from colddiff.jobs.folder import JobFolder
from colddiff.jobs.status import Status
from colddiff.stores.local_store import LocalStore

POLL_S = 0.02
JOB = ("quickstart", "num_steps=40", "checkpoint_every=40", "log_every=1")
PARTS = (
    "the client, until it has submitted",
    "Ray, until the driver runs",
    "the driver's checks",
    "the workers, until their first step",
    "39 steps and a checkpoint",
    "evaluation and report",
    "the driver's end, until the client returns",
)


def measure(repeats: int) -> dict[str, Any]:
    """Medians over jobs of 40 steps, one after another; the first one only warms the cluster up."""
    with tempfile.TemporaryDirectory(prefix="cdl-", dir="/tmp") as name:  # a short path for Ray
        home = Home(Path(name) / "home")
        home.make()
        local_cluster.start(home)
        try:
            runs = [_submitted(Path(name), seed) for seed in range(repeats + 1)][1:]
        finally:
            local_cluster.stop(home)
    parts = zip(*(_differences(times) for times, _ in runs), strict=True)
    row: dict[str, Any] = {"jobs": repeats}
    row |= {
        f"{part}, s": statistics.median(found) for part, found in zip(PARTS, parts, strict=True)
    }
    firsts, ends = ([times[n] for times, _ in runs] for n in (3, -1))
    row["submit to first step, s (goal 12)"] = statistics.median(firsts)
    row["submit to first step, min and max, s"] = f"{min(firsts):.1f} to {max(firsts):.1f}"
    row["submit to end, s (goal 22)"] = statistics.median(ends)
    row["CPU of the machine, submit to end, s"] = statistics.median(cpu for _, cpu in runs)
    return row


def _submitted(root: Path, seed: int) -> tuple[list[float], float]:
    """Seconds since the command began at which each part ended, and the machine's CPU seconds."""
    storage = root / "runs"
    before, busy = _job_ids(storage), _busy_s()
    began = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-m", "colddiff.cli.main", "submit", "train", *JOB, f"seed={seed}"],
        env={**os.environ, "COLDDIFF_HOME": str(root / "home"), "COLDDIFF_STORAGE": str(storage)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    times: list[float] = []

    def passed(reached: Callable[[], bool]) -> None:
        while not reached():
            assert process.poll() is None, f"the job ended early, with code {process.returncode}"
            time.sleep(POLL_S)
        times.append(time.perf_counter() - began)

    passed(lambda: len(_job_ids(storage)) > len(before))
    (job_id,) = _job_ids(storage) - before
    folder = JobFolder(LocalStore(storage), job_id)

    def status() -> Status:
        return folder.status() or Status()

    # The status is written every two seconds: a part shorter than that counts to the one before.
    passed(lambda: status().state == "running")
    passed(lambda: status().phase not in ("", "queued", "starting", "preparing"))
    passed(lambda: bool(folder.progress(1).get("step")) or bool(status().step))
    passed(lambda: status().phase == "evaluating")
    passed(lambda: status().state == "done")
    assert process.wait() == 0
    times.append(time.perf_counter() - began)
    return times, _busy_s() - busy


def _job_ids(storage: Path) -> set[str]:
    return {path.parent.parent.parent.name for path in storage.glob("jobs/*/attempts/1/claim.json")}


def _busy_s() -> float:
    spent = psutil.cpu_times()
    return float(spent.user + spent.system)


def _differences(times: list[float]) -> list[float]:
    return [after - before for before, after in zip([0.0, *times], times, strict=False)]
