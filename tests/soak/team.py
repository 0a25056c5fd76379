"""Three machines, the RADOS Gateway and MLflow on PostgreSQL, and what can befall them."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pytest

from colddiff.jobs.folder import JobFolder, list_jobs
from colddiff.stores.open import open_store
from tests.kills import PATIENCE_S, kill
from tests.machines import free_port, several_machines
from tests.system import S3Server, running_s3
from tests.tracking_server import TrackingServer, running_tracking_server

COLDDIFF = (sys.executable, "-m", "colddiff.cli.main")
UNREACHABLE = 3
"""README's exit code where the cluster, the store or the tracker does not respond."""


@dataclass
class Team:
    """Three machines, a bucket and a tracker, and what befell them."""

    place: Path
    bucket: str
    s3: S3Server
    tracking: TrackingServer
    machines: tuple[Any, list[Any]]
    address: str
    outage_s: float
    began: float = field(default_factory=time.monotonic)
    events: list[str] = field(default_factory=list)

    def tell(self, line: str) -> None:
        """Keeps a line of what happened, with its time."""
        self.events.append(f"{time.monotonic() - self.began:7.1f} s  {line}")
        print(self.events[-1], file=sys.stderr, flush=True)

    def folder(self, job_id: str) -> JobFolder:
        return JobFolder(open_store(f"{self.bucket}/team"), job_id)

    def jobs(self) -> set[str]:
        return set(list_jobs(open_store(f"{self.bucket}/team")))

    def run(self, *words: object, codes: tuple[int, ...] = (0,)) -> str:
        """``colddiff words`` to its end; returns what it printed."""
        typed = [str(word) for word in words]
        done = subprocess.run(
            [*COLDDIFF, *typed], capture_output=True, text=True, timeout=PATIENCE_S, check=False
        )
        assert done.returncode in codes, f"{typed}: {done.returncode}: {done.stderr[-3000:]}"
        if done.returncode:
            self.tell(f"{' '.join(typed[:2])} ended with {done.returncode}: {done.stderr.strip()}")
        return done.stdout

    @contextmanager
    def away(self, what: str) -> Iterator[None]:
        """A block within which something is away, ``outage_s`` in all, and what that says."""
        began = time.monotonic()
        self.tell(f"    {what} is away")
        yield
        time.sleep(max(0.0, began + self.outage_s - time.monotonic()))
        self.tell(f"    {what} comes back")

    def refused(self, job_id: str) -> None:
        """An evaluation that nobody can begin now has the exit code that README names."""
        typed = ("submit", "evaluate", f"checkpoint={job_id}@last", "num_images=80")
        self.run(*typed, "--address", self.address, codes=(UNREACHABLE,))
        assert "Traceback" not in self.events[-1]


def _gateway(team: Team) -> psutil.Process:
    found = [psutil.Process(pid) for pid in team.s3.pids]
    return next(process for process in found if process.name() == "radosgw")


@contextmanager
def _suspended(process: psutil.Process) -> Iterator[None]:
    process.suspend()
    try:
        yield
    finally:
        process.resume()


def stop_store(team: Team) -> None:
    """Requests are accepted, and nobody responds."""
    with _suspended(_gateway(team)), team.away("the store (stopped)"):
        pass


def restart_store(team: Team, trained: str) -> None:
    """Nobody listens, then a new process does, on the same objects."""
    gateway = _gateway(team)
    command, cwd, env = gateway.cmdline(), gateway.cwd(), gateway.environ()
    kill([gateway.pid])
    try:
        with team.away("the store (killed)"):
            team.refused(trained)
    finally:
        started = subprocess.Popen(
            command, cwd=cwd, env=env, stderr=subprocess.DEVNULL, start_new_session=True
        )
        pids = [pid for pid in team.s3.pids if pid != gateway.pid]
        team.s3 = S3Server(team.s3.folder, (*pids, started.pid), team.s3.environment)


def restart_tracker(team: Team, trained: str) -> None:
    """Server and database are killed at once."""
    team.tracking.kill()
    with team.away("the tracker (killed)"):
        team.refused(trained)
    team.tracking.start()


def stop_dashboard(team: Team, trained: str) -> None:
    """Of this cluster; its jobs do not need it."""
    cluster, _ = team.machines
    (dashboard,) = cluster.head_node.all_processes["dashboard"]
    process = psutil.Process(dashboard.process.pid)
    with _suspended(process), team.away("the dashboard (stopped)"):
        team.refused(trained)


@contextmanager
def running_team(place: Path, outage_s: float) -> Iterator[Team]:
    """All of it; what a client and a cluster need is in the environment within the block."""
    with ExitStack() as stack:
        s3 = stack.enter_context(running_s3(place / "s3"))
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        s3.set(patch)
        bucket = f"s3://{s3.bucket()}"
        tracking = stack.enter_context(running_tracking_server(free_port(), f"{bucket}/mlflow"))
        for name, value in {
            **tracking.environment,
            "COLDDIFF_STORAGE": f"{bucket}/team",
            "COLDDIFF_CACHE": str(place / "cache"),
            "COLDDIFF_HOME": str(place / "home"),
            "PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin",
        }.items():
            patch.setenv(name, value)
        patch.delenv("COLDDIFF_PLUGINS", raising=False)
        dashboard = free_port()
        machines = stack.enter_context(several_machines(3, dashboard))
        patch.setenv("RAY_AUTH_MODE", "disabled")
        address = f"http://127.0.0.1:{dashboard}"
        yield Team(place, bucket, s3, tracking, machines, address, outage_s)
