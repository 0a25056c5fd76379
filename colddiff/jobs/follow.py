"""Follow a job through its folder until it ends, even if its driver or its cluster dies."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from colddiff.errors import ClusterError
from colddiff.jobs.status import AGAIN, LOST_AFTER_S, State, Status

if TYPE_CHECKING:
    from colddiff.jobs.folder import JobFolder
    from colddiff.jobs.runner import DriverState, Runner

PROBE_S = 3.0
UNREACHABLE_S = 20.0
# An attempt is queued before its cluster knows it: uploading its code may take this long.
SUBMIT_S = 30.0
# The same where another runner starts it: that one knows better, and settles it if it can.
FOREIGN_SUBMIT_S = 600.0
TAIL_LINES = 3

log = logging.getLogger(__name__)


def poll_seconds(folder: JobFolder) -> float:
    """Interval between reads of ``status.json``, s: longer where each read is a request."""
    return 3.0 if "://" in folder.store.uri else 1.0


def follow(
    folder: JobFolder, attempt: int, runner: Runner | None, show: Callable[[Status], None]
) -> Status:
    """Shows ``attempt`` or a later one until it has ended; returns its final status.

    Progress and final status are read from the folder. The runner is only asked whether the driver
    is still alive: if it ended without writing a final status, that is written here, with the last
    lines of its log.

    Raises ClusterError if the cluster cannot be reached before the driver wrote anything.
    """
    probe, reports = _DriverProbe(folder, runner), _Reports(folder)
    warned, began = False, time.time()
    while True:
        status = folder.status()
        if status is None or status.attempt < attempt:
            status = Status(attempt=attempt, heartbeat=began, phase="queued")
        attempt = status.attempt
        reports.show(status)
        if status.settled:
            return status
        verdict = probe.verdict(status)
        if verdict is not None:
            return verdict
        if status.state == "lost":
            if not probe.driver_is_alive:
                return status
            if not warned:
                log.info("%s, but its driver is alive: waiting", status.message.split(";")[0])
            warned = True
        else:
            warned = False
            show(status)
        time.sleep(poll_seconds(folder))


class _Reports:
    """Logs what attempts report on the way, each line once."""

    def __init__(self, folder: JobFolder) -> None:
        self._folder = folder
        self._attempt: int | None = None
        self._shown = 0

    def show(self, status: Status) -> None:
        """Logs what is new; of an attempt that began long ago, the last lines only."""
        if status.attempt != self._attempt:
            first = self._attempt is None
            self._shown = max(0, status.reports - TAIL_LINES) if first else 0
            self._attempt = status.attempt
        if status.reports > self._shown:
            lines = self._folder.reports(status.attempt)
            for line in lines[self._shown :]:
                log.info("%s", line)
            self._shown = len(lines)


def submit_seconds(folder: JobFolder, attempt: int, runner: Runner) -> float:
    """How long ``attempt`` may be queued, unknown to ``runner``, before it counts as lost, s."""
    return SUBMIT_S if runner.owns(folder.read_claim(attempt)) else FOREIGN_SUBMIT_S


class _DriverProbe:
    """Probes the runner periodically for the driver of a job's newest attempt."""

    def __init__(self, folder: JobFolder, runner: Runner | None) -> None:
        self._folder, self._runner = folder, runner
        self._next = 0.0
        self._unreachable_since: float | None = None
        self.driver_is_alive = False

    def verdict(self, status: Status) -> Status | None:
        """The final status if the driver has ended, else None."""
        now = time.monotonic()
        waited_s = time.time() - status.heartbeat if status.state == "queued" else 0.0
        if self._runner is None:
            gone = waited_s > LOST_AFTER_S
            return settle(self._folder, status.attempt, None, None) if gone else None
        if now < self._next:
            return None
        self._next = now + PROBE_S
        try:
            driver = self._runner.find(self._folder.job_id, status.attempt)
        except ClusterError as error:
            return self._unreachable(status, now, error)
        self._unreachable_since = None
        self.driver_is_alive = driver is not None and not driver.ended
        if self.driver_is_alive or (driver is None and status.state == "running"):
            # A driver unknown to this cluster may run on another; its heartbeat decides.
            return None
        if driver is None and waited_s < submit_seconds(self._folder, status.attempt, self._runner):
            return None
        return settle(self._folder, status.attempt, driver, self._runner)

    def _unreachable(self, status: Status, now: float, error: ClusterError) -> Status | None:
        assert self._runner is not None
        self.driver_is_alive = False
        if self._runner.is_down():
            return settle(self._folder, status.attempt, None, None)
        self._unreachable_since = self._unreachable_since or now
        if status.state == "queued" and now - self._unreachable_since > UNREACHABLE_S:
            raise error
        return None


def settle(
    folder: JobFolder, attempt: int, driver: DriverState | None, runner: Runner | None
) -> Status:
    """Writes the final status of a driver that ended without writing one, and returns it.

    A driver that exited by itself is ``failed``, one that was stopped on request ``stopped``, and
    one that was killed or lost with its cluster ``lost``: submitting the job again resumes it.
    """
    status = folder.status()
    if status is not None and status.attempt == attempt:
        if status.settled:
            return status
    else:
        status = Status(attempt=attempt)
    printed = folder.log(attempt).decode(errors="replace")
    if driver is not None and runner is not None and not printed:
        printed = runner.log(folder.job_id, attempt)
        folder.write_log(attempt, printed.encode())
    state, why = _verdict(driver, on_cluster="address" in folder.read_claim(attempt))
    if state == "lost" and folder.stop_requested(attempt):
        state, why = "stopped", f"ended on request; {AGAIN}"
    lines = [line.strip() for line in printed.splitlines() if line.strip()]
    tail = " | ".join(lines[-TAIL_LINES:])
    message = why
    if state == "failed" and tail:
        message = f"{why}; end of its log: {tail[-500:]}"
    verdict = replace(status, state=state, message=message, phase="", eta_s=None)
    folder.write_status(verdict)
    return verdict


def _verdict(driver: DriverState | None, *, on_cluster: bool) -> tuple[State, str]:
    if driver is None:
        gone = "its cluster is gone or no longer knows it" if on_cluster else "its process is gone"
        return "lost", f"{gone}; {AGAIN}"
    if driver.ending == "stopped":
        return "stopped", f"its driver was stopped on request; {AGAIN}"
    if driver.ending == "killed":
        return "lost", f"its driver was killed ({driver.detail}); {AGAIN}"
    return "failed", f"its driver ended without writing a final status ({driver.detail})"
