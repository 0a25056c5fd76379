"""Following a job through its folder to its end, whatever becomes of its driver or its cluster."""

from __future__ import annotations

import time
from dataclasses import replace

from colddiff.cluster import local_cluster
from colddiff.cluster.display import Display
from colddiff.cluster.home import Home
from colddiff.cluster.ray_jobs import Driver, RayJobs, submission_id
from colddiff.errors import ClusterError
from colddiff.jobs.folder import LOST_AFTER_S, JobFolder, State, Status

LOOK_S = 3.0
UNREACHABLE_S = 20.0
# A submit says "queued" before the cluster has the job: its upload may take this long.
HAND_IN_S = 30.0
TAIL_LINES = 3


def poll_seconds(folder: JobFolder) -> float:
    """How often a follower reads ``status.json``: gentler where each read is a request."""
    return 3.0 if "://" in folder.store.uri else 1.0


def follow(folder: JobFolder, attempt: int, jobs: RayJobs | None, display: Display) -> Status:
    """Shows ``attempt`` or a later one until it has ended; returns its final status.

    The folder tells the progress and the end. The cluster is asked only whether the driver still
    lives: one that ended without a verdict gets it here, with the last lines of its log.

    Raises ClusterError where the cluster is gone before the driver gave a sign of life.
    """
    watch = _DriverWatch(folder, jobs)
    silent, began = False, time.time()
    while True:
        status = folder.status()
        if status is None or status.attempt < attempt:
            status = Status(attempt=attempt, heartbeat=began, phase="queued")
        attempt = status.attempt
        if status.finished and status.state != "lost":
            return status
        verdict = watch.verdict(status)
        if verdict is not None:
            return verdict
        if status.state == "lost":
            if not watch.driver_lives:
                return status
            if not silent:
                display.say(f"{status.message.split(';')[0]}, but its driver runs: waiting")
            silent = True
        else:
            silent = False
            display.show(status)
        time.sleep(poll_seconds(folder))


class _DriverWatch:
    """Asks the cluster now and then for the driver of a job's newest attempt."""

    def __init__(self, folder: JobFolder, jobs: RayJobs | None) -> None:
        self._folder, self._jobs = folder, jobs
        self._next = 0.0
        self._unreachable_since: float | None = None
        self.driver_lives = False

    def verdict(self, status: Status) -> Status | None:
        """The final status of a driver that is gone, else None."""
        now = time.monotonic()
        waited_s = time.time() - status.heartbeat if status.state == "queued" else 0.0
        if self._jobs is None:
            gone = waited_s > LOST_AFTER_S
            return settle(self._folder, status.attempt, None, None) if gone else None
        if now < self._next:
            return None
        self._next = now + LOOK_S
        try:
            driver = self._jobs.find(submission_id(self._folder.job_id, status.attempt))
        except ClusterError as error:
            return self._unreachable(status, now, error)
        self._unreachable_since = None
        self.driver_lives = driver is not None and not driver.ended
        if self.driver_lives or (driver is None and status.state == "running"):
            # A driver this cluster does not know may run on another; its heartbeat decides.
            return None
        if driver is None and waited_s < HAND_IN_S:
            return None
        return settle(self._folder, status.attempt, driver, self._jobs)

    def _unreachable(self, status: Status, now: float, error: ClusterError) -> Status | None:
        assert self._jobs is not None
        self.driver_lives = False
        if self._jobs.cluster.local and local_cluster.running(Home.from_environment()) is None:
            return settle(self._folder, status.attempt, None, None)
        self._unreachable_since = self._unreachable_since or now
        if status.state == "queued" and now - self._unreachable_since > UNREACHABLE_S:
            raise error
        return None


def settle(folder: JobFolder, attempt: int, driver: Driver | None, jobs: RayJobs | None) -> Status:
    """Writes the verdict of a driver that is gone and left none; returns how the job ended.

    A driver that ended by itself failed, one that was told to end is stopped, and what was killed
    or went with its cluster is lost: submitting the job again goes on from its last checkpoint.
    """
    status = folder.status()
    if status is not None and status.attempt == attempt:
        if status.finished and status.state != "lost":
            return status
    else:
        status = Status(attempt=attempt)
    log = folder.log(attempt).decode(errors="replace")
    if driver is not None and jobs is not None and not log:
        log = jobs.log(driver.submission_id)
        folder.write_log(attempt, log.encode())
    state, why = _how_it_ended(driver)
    if state == "lost" and folder.stop_requested(attempt):
        state, why = "stopped", "ended on request; submit the same job again to go on"
    tail = " | ".join([line.strip() for line in log.splitlines() if line.strip()][-TAIL_LINES:])
    message = why
    if state == "failed" and tail:
        message = f"{why}; its last words: {tail[-500:]}"
    verdict = replace(status, state=state, message=message, phase="", eta_s=None)
    folder.write_status(verdict)
    return verdict


def _how_it_ended(driver: Driver | None) -> tuple[State, str]:
    again = "submit the same job again to go on"
    if driver is None:
        return "lost", f"its cluster is gone, or no longer knows it; {again}"
    if driver.status == "STOPPED":
        return "stopped", f"its driver was told to end; {again}"
    code = driver.exit_code
    if driver.status == "FAILED" and (code is None or code < 0 or code > 128):
        return "lost", f"its driver was killed ({_killed_by(driver)}); {again}"
    return "failed", f"its driver ended with exit code {code} and left no verdict"


def _killed_by(driver: Driver) -> str:
    if driver.exit_code is None:
        lines = [line.strip() for line in driver.message.splitlines() if line.strip()]
        return lines[0][:200] if lines else "Ray does not say how"
    return f"signal {-driver.exit_code if driver.exit_code < 0 else driver.exit_code - 128}"
