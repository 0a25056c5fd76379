"""Follow a job through its folder until it ends, even if its driver or its cluster dies."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from colddiff.background import in_context
from colddiff.errors import ERROR_LINE, ClusterError
from colddiff.jobs.status import AGAIN, LOST_AFTER_S, State, Status, of_lost
from colddiff.machine.printed_lines import parted, unstamped
from colddiff.machine.processes import process

if TYPE_CHECKING:
    from colddiff.jobs.folder import JobFolder
    from colddiff.jobs.runner import DriverState, Runner

PROBE_S = 3.0
UNREACHABLE_S = 20.0
SAY_S = 5.0
"""How long a cluster may not respond before a line says so."""
ANSWER_S = 5.0
"""How long a cluster is waited for; later its answer counts once it is there."""
# An attempt is queued before its cluster knows it: uploading its code may take this long.
SUBMIT_S = 30.0
# The same where another runner starts it: that one knows better, and settles it if it can.
FOREIGN_SUBMIT_S = 600.0
TAIL_LINES = 3
FILE_S = 0.25
"""Between reads of a job's status in a folder, by who submitted it."""
LAST_LINES = 10
"""Of a log, where the line may be with which a driver says why it wrote no status."""

log = logging.getLogger(__name__)


def poll_seconds(folder: JobFolder) -> float:
    """Interval between reads of ``status.json``, s: longer where each read is a request."""
    return 3.0 if _is_remote(folder) else 1.0


def _is_remote(folder: JobFolder) -> bool:
    return "://" in folder.store.uri


def follow(
    folder: JobFolder, attempt: int, runner: Runner | None, show: Callable[[Status], None]
) -> Status:
    """Shows ``attempt`` or a later one until it has ended; returns its final status.

    Progress and final status are read from the folder; see ``AttemptWatch`` for whether the attempt
    lives. If it ended without writing a final status, that is written here, with the last lines of
    its log.

    Raises ClusterError if the cluster cannot be reached before the driver wrote anything.
    """
    watch, reports = AttemptWatch(folder, attempt, runner), _Reports(folder)
    warned = False
    while True:
        seen = watch.look()
        reports.show(seen.status)
        if seen.ended:
            return seen.status
        if seen.hangs and not warned:
            log.info("no heartbeat for %d s, but its driver is alive: waiting", seen.silent_s)
        warned = seen.hangs
        if not seen.hangs:
            show(seen.status)
        # One small file: whoever waits for the end is told of it at once.
        time.sleep(poll_seconds(folder) if _is_remote(folder) else FILE_S)


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


@dataclass(frozen=True, slots=True)
class Seen:
    """What one look at an attempt has shown."""

    status: Status
    ended: bool = False
    """Whether it has ended; ``status`` is then final, or ``lost``."""
    judged: bool = False
    """Whether that end was found out here, as its driver did not write it."""
    beats: bool = False
    """Whether its heartbeat has changed since the last look."""
    alive: bool = False
    """Whether its cluster says that its driver runs."""
    runs_here: bool = False
    """Whether its driver is a process of this machine that runs."""
    silent_s: float = 0.0
    """How long its heartbeat has not changed while it was watched."""

    @property
    def hangs(self) -> bool:
        """Whether its driver runs, but does not beat."""
        return self.alive and self.silent_s > LOST_AFTER_S and self.status.state != "queued"


class AttemptWatch:
    """Tells whether an attempt lives, by the one policy of submit, follow, list, status and stop.

    Its cluster knows, or the process table if its driver runs on this machine. Else it lives as
    long as its heartbeat changes while it is watched here: no time that another machine wrote is
    compared with this machine's clock, which may be minutes apart.

    Args:
        folder: the job's.
        attempt: its number; a later one is followed as soon as there is one.
        runner: asked for the driver every 3 s; None if it is not known where the attempt runs.
    """

    def __init__(self, folder: JobFolder, attempt: int, runner: Runner | None) -> None:
        self.runner = runner
        self._folder, self._attempt = folder, attempt
        self._seen: tuple[object, ...] | None = None
        self._since = time.monotonic()
        self._alive = self._unknown = self._here = False
        self._next = 0.0
        self._unreachable_since: float | None = None
        self._told = False
        self._question: _Question | None = None

    def look(self) -> Seen:
        """Reads the status, and asks who may know the driver; writes a final status if it is gone.

        Raises ClusterError if the cluster cannot be reached before the driver wrote anything.
        """
        status = self._folder.status()
        if status is None or status.attempt < self._attempt:
            status = Status(attempt=self._attempt, phase="queued")
        self._attempt = status.attempt
        if status.settled:
            return Seen(status, ended=True)
        now = time.monotonic()
        sign = (status.attempt, status.state, status.heartbeat)
        # The first one may be of a driver that died long ago.
        beats = self._seen not in (None, sign) and status.state == "running"
        if sign != self._seen:
            self._seen, self._since = sign, now
        silent_s = now - self._since
        verdict = self._verdict(status, now, silent_s)
        if verdict is not None:
            return Seen(verdict, ended=True, judged=True)
        return Seen(status, beats=beats, alive=self._alive, runs_here=self._here, silent_s=silent_s)

    def _verdict(self, status: Status, now: float, silent_s: float) -> Status | None:
        """The final status if the driver has ended, else None."""
        if self.runner is not None and now >= self._next:
            self._next = now + PROBE_S
            verdict = self._asked(self.runner, status, now)
            if verdict is not None:
                return verdict
        if self._alive:
            return None
        here = runs_here(self._folder, status, unknown=self._unknown and self._owned(status))
        self._here = here is True
        if here is False:
            return settle(self._folder, status.attempt, None, None, process_gone=True)
        if status.state == "queued":
            gone = silent_s > self._queued_s(status)
            return settle(self._folder, status.attempt, None, None) if gone else None
        if silent_s > LOST_AFTER_S or status.state == "lost":
            return self._lost(status, silent_s)
        return None

    def _asked(self, runner: Runner, status: Status, now: float) -> Status | None:
        """Asks the cluster for the driver; the final status if it has ended."""
        try:
            driver = self._answer(runner, status.attempt)
        except ClusterError as error:
            self._alive = self._unknown = False
            if runner.is_down():
                return settle(self._folder, status.attempt, None, None)
            self._unreachable_since = self._unreachable_since or now
            if now - self._unreachable_since > SAY_S and not self._told:
                self._told = True
                log.warning("%s; following the job through its storage meanwhile", error)
            if status.state == "queued" and now - self._unreachable_since > UNREACHABLE_S:
                raise error
            return None  # its heartbeat decides
        self._unreachable_since, self._told = None, False
        self._unknown = driver is None
        self._alive = driver is not None and not driver.ended
        if driver is not None and driver.ended:
            return settle(self._folder, status.attempt, driver, runner)
        return None

    def _answer(self, runner: Runner, attempt: int) -> DriverState | None:
        """What the cluster says of the driver; ClusterError if it does not answer in time."""
        if self._question is None or self._question.attempt != attempt:
            self._question = _Question(runner, self._folder, attempt)
        question = self._question
        if not question.answered.wait(ANSWER_S if question.new else 0.0):
            question.new = False
            raise ClusterError(f"{runner.where} does not answer")
        self._question = None
        return question.answer()

    def _lost(self, status: Status, silent_s: float) -> Status:
        """Writes that the attempt is lost; a driver that lives all the same will overwrite it."""
        if status.state == "lost":
            return status
        message = f"no heartbeat in {silent_s:.0f} s of watching it; {AGAIN}"
        lost = replace(status, state="lost", message=message)
        self._folder.write_status(lost)
        _end_run(self._folder, lost)
        return lost

    def _owned(self, status: Status) -> bool:
        return self.runner is not None and self.runner.owns(self._folder.read_claim(status.attempt))

    def _queued_s(self, status: Status) -> float:
        if self.runner is None:
            return LOST_AFTER_S
        return submit_seconds(self._folder, status.attempt, self.runner)


class _Question:
    """Asks a cluster for a driver, in a thread: one that hangs does not hold up the following."""

    def __init__(self, runner: Runner, folder: JobFolder, attempt: int) -> None:
        self.attempt, self.answered, self.new = attempt, threading.Event(), True
        self._found: DriverState | None = None
        self._error: Exception | None = None

        def ask() -> None:
            try:
                self._found = runner.find(folder, attempt)
            except Exception as error:
                self._error = error
            self.answered.set()

        threading.Thread(target=in_context(ask), name="ask-cluster", daemon=True).start()

    def answer(self) -> DriverState | None:
        """What it said; raises what asking raised."""
        if self._error is not None:
            raise self._error
        return self._found


def runs_here(folder: JobFolder, status: Status, *, unknown: bool = False) -> bool | None:
    """Whether the driver's process runs, if it ran on this machine; None if that is not known.

    ``unknown``: its cluster does not know the attempt, so nobody but its claimant can start it.
    """
    host, pid = status.host, status.pid
    if not host:
        claim = folder.read_claim(status.attempt)
        if claim.get("address") and not unknown:
            return None  # the claimant was only the client
        host, pid = claim.get("host") or "", int(claim.get("pid", 0))
    return None if host != os.uname().nodename else process(pid) is not None


def settle(
    folder: JobFolder,
    attempt: int,
    driver: DriverState | None,
    runner: Runner | None,
    *,
    process_gone: bool = False,
) -> Status:
    """Writes the final status of a driver that ended without writing one, and returns it.

    ``process_gone``: it ran on this machine, and does not any more.

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
        kept, aside = parted(runner.log(folder, attempt).encode())
        folder.write_log(attempt, kept)
        if aside:
            folder.write_debug_log(attempt, aside)
        printed = kept.decode(errors="replace")
    on_cluster = not process_gone and "address" in folder.read_claim(attempt)
    state, why = _verdict(driver, on_cluster=on_cluster)
    if state == "lost":
        state, why = of_lost(why, requested=folder.stop_requested(attempt))
    lines = [line for text in printed.splitlines() if (line := unstamped(text).strip())]
    tail = " | ".join(lines[-TAIL_LINES:])
    message = why
    said = [line for line in lines[-LAST_LINES:] if line.startswith(ERROR_LINE)]
    if state == "failed" and said:
        message = said[-1].removeprefix(ERROR_LINE)
    elif state == "failed" and tail:
        message = f"{why}; end of its log: {tail[-500:]}"
    verdict = replace(status, state=state, message=message, phase="", eta_s=None)
    folder.write_status(verdict)
    _end_run(folder, verdict)
    return verdict


def _end_run(folder: JobFolder, ended: Status) -> None:
    # Heavy, and few jobs are lost.
    from colddiff.jobs.tracking_run import end_lost_run

    end_lost_run(folder, ended.state)


def _verdict(driver: DriverState | None, *, on_cluster: bool) -> tuple[State, str]:
    """State, and why; of one that is lost without the way out."""
    if driver is None:
        gone = "its cluster is gone or no longer knows it" if on_cluster else "its process is gone"
        return "lost", gone
    if driver.ending == "stopped":
        return "stopped", f"its driver was stopped on request; {AGAIN}"
    if driver.ending == "killed":
        return "lost", f"its driver was killed ({driver.detail})"
    return "failed", f"its driver ended without writing a final status ({driver.detail})"
