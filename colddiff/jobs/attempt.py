"""One attempt at a job: taken up by one driver, kept alive by a heartbeat, ended by one verdict."""

from __future__ import annotations

import logging
import os
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import replace
from functools import cached_property
from typing import Any

from colddiff.errors import ColddiffError, Stopped
from colddiff.jobs.folder import JobFolder
from colddiff.jobs.job import Job, LimitsSpec
from colddiff.jobs.resolve import ResolvedJob
from colddiff.jobs.status import AGAIN, EXIT_CODES, HEARTBEAT_S, State, Status
from colddiff.jobs.tracking_run import keep_picture
from colddiff.jobs.verb import VERBS
from colddiff.ports import Tracker
from colddiff.retry import patiently

STOP_GRACE_S = 300.0
VERDICT_PATIENCE_S = 600.0
NO_LIMITS = LimitsSpec()
PROGRESS_FIELDS = ("step", "num_steps", "loss", "images_per_s", "eta_s", "phase", "detail")

log = logging.getLogger(__name__)


class Attempt:
    """An attempt as its driver and its work share it.

    The driver is the only writer of the job's ``status.json`` meanwhile. ``drive`` takes the
    attempt up, writes a heartbeat until ``work`` returns its result or raises, and then writes how
    it ended. Progress that the work writes goes into the status with each heartbeat.
    """

    tracker: Tracker
    """The job's tracking run, once the work has been prepared."""

    def __init__(
        self,
        resolved: ResolvedJob,
        number: int,
        *,
        gpus: float = 0.0,
        folder: JobFolder | None = None,
    ) -> None:
        self.resolved, self.number = resolved, number
        self.folder = folder or resolved.folder
        self.pictures: list[str] = []
        self._limits: LimitsSpec = getattr(resolved.job, "limits", NO_LIMITS)
        self._limit = ""
        self._gpus = gpus
        self._ended = threading.Event()
        self._lock = threading.Lock()
        self._phase = "starting"
        self._superseded = False

    @cached_property
    def job(self) -> Job:
        """What is done, as it was submitted."""
        return self.resolved.job

    def phase(self, words: str) -> None:
        """Says what the attempt is doing, such as ``evaluating``; "" leaves it to the progress."""
        self._phase = words

    def progress(self, **fields: Any) -> None:
        """Writes how far the work is: any of ``PROGRESS_FIELDS``."""
        self.folder.write_progress(self.number, fields)

    def reached(self, step: int, **more: Any) -> None:
        """Writes where the work ended, exactly: progress is written now and then only."""
        self.folder.write_outcome(self.number, {"step": step, **more})

    def stop_requested(self) -> bool:
        """Whether a person, a limit or a signal asked this attempt to stop."""
        return self.folder.stop_requested(self.number)

    def request_stop(self) -> None:
        """Asks this attempt to stop, with a checkpoint where it takes any."""
        self.folder.request_stop(self.number, STOP_GRACE_S)

    def keep_picture(self, name: str, data: bytes) -> None:
        """Keeps a picture in the job's folder and, unless the job says not, in its tracking run."""
        self.pictures.append(keep_picture(self.resolved, self.folder, self.tracker, name, data))

    def drive(self, work: Callable[[], dict[str, Any]]) -> int:
        """Exit code of the attempt: 0 done, 1 failed, 4 stopped; the message is in the status.

        A KeyboardInterrupt ends the attempt as stopped and is raised again.
        """
        self._take_up()
        beat = threading.Thread(target=self._beat, name="heartbeat", daemon=True)
        beat.start()
        interrupted = None
        try:
            state, message = self._work(work)
        except KeyboardInterrupt as error:
            interrupted = error
            state, message = "stopped", f"interrupted; {AGAIN}"
        finally:
            self._ended.set()
            beat.join(timeout=30)
        # What hours of work came to is not lost to a store that is away just now.
        patiently(lambda: self._end(state, message), "the verdict", VERDICT_PATIENCE_S)
        if interrupted:
            raise interrupted
        return EXIT_CODES[state]

    @property
    def status(self) -> Status:
        """How the attempt stands, as it was last written."""
        return self._status

    def _take_up(self) -> None:
        """Becomes the driver of this attempt; ColddiffError where it has, or had, another one."""
        host, pid = os.uname().nodename, os.getpid()
        before = self.folder.status()
        claimed = self.folder.claim(self.number, {"host": host, "pid": pid})
        begun = before is not None and before.attempt == self.number and before.state != "queued"
        if (not claimed and begun) or self.folder.superseded(self.number):
            raise ColddiffError(
                f"attempt {self.number} of {self.resolved.id} has or had another driver; "
                f"`colddiff status {self.resolved.id}` shows it"
            )
        before, now = before or Status(), time.time()
        self._status = Status(
            state="running",
            attempt=self.number,
            step=before.step,
            num_steps=VERBS[self.resolved.verb].asked_for(self.job),
            heartbeat=now,
            started=before.started or now,
            running_s=before.running_s,
            gpu_hours=before.gpu_hours,
            phase=self._phase,
            host=host,
            pid=pid,
        )
        self._last_beat = now
        self.folder.write_status(self._status)

    def _end(self, state: State, message: str) -> None:
        self._update()
        outcome = self.folder.outcome(self.number) or {}
        with self._lock:
            step = outcome.get("step", self._status.step)
            self._status = replace(
                self._status, state=state, message=message, phase="", eta_s=None, step=step
            )
            self._write_status()

    def _work(self, work: Callable[[], dict[str, Any]]) -> tuple[State, str]:
        try:
            result = work()
            patiently(lambda: self.folder.write_result(result), "the result", VERDICT_PATIENCE_S)
        except Stopped as stopped:
            return "stopped", f"{self._limit}: {stopped}" if self._limit else str(stopped)
        except ColddiffError as error:
            return "failed", str(error)
        except Exception as error:
            log.error("%s", traceback.format_exc().rstrip())
            return "failed", f"{type(error).__name__}: {error} (see `colddiff logs`)"
        return "done", ""

    def _beat(self) -> None:
        while not self._ended.wait(HEARTBEAT_S / 2):
            try:
                self._update()
            except ColddiffError:
                # A store that is away for a while must not end the work; the next beat tries again.
                continue

    def _update(self) -> None:
        progress = self.folder.progress(self.number)
        known = {name: progress[name] for name in PROGRESS_FIELDS if name in progress}
        if self._phase:
            known["phase"] = self._phase
        with self._lock:
            now = time.time()
            spent, self._last_beat = now - self._last_beat, now
            self._status = replace(
                self._status,
                **{"phase": "starting workers", **known},
                heartbeat=now,
                running_s=self._status.running_s + spent,
                gpu_hours=self._status.gpu_hours + self._gpus * spent / 3600,
            )
            self._write_status()
        self._enforce_limits()

    def _write_status(self) -> None:
        # A driver that was presumed dead must not overwrite what its successor writes.
        self._superseded = self._superseded or self.folder.superseded(self.number)
        if not self._superseded:
            self.folder.write_status(self._status)

    def _enforce_limits(self) -> None:
        if self._limit:
            return
        for name, spent in (
            ("hours", self._status.running_s / 3600),
            ("gpu_hours", self._status.gpu_hours),
        ):
            allowed = getattr(self._limits, name)
            if allowed is not None and spent >= allowed:
                self._limit = f"limits.{name}={allowed:g} reached"
                self.request_stop()
