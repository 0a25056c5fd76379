"""One attempt at a job: claimed by one driver, kept alive by a heartbeat, ended by one verdict."""

from __future__ import annotations

import logging
import threading
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from functools import cached_property, partial
from typing import Any, TypeVar

from colddiff.errors import ColddiffError, Stopped, Unreachable
from colddiff.jobs.folder import JobFolder
from colddiff.jobs.job import Job, LimitsSpec
from colddiff.jobs.resolve import ResolvedJob
from colddiff.jobs.status import AGAIN, EXIT_CODES, HEARTBEAT_S, WAITING, State, Status, of_lost
from colddiff.jobs.tracking_run import keep_picture
from colddiff.jobs.verb import VERBS
from colddiff.machine.processes import this_claimant, this_process
from colddiff.ports import Tracker
from colddiff.retry import call_with_retry

STOP_GRACE_S = 300.0
VERDICT_RETRY_S = 600.0
"""How long writing what the work came to, its result and final status, is retried."""
NO_LIMITS = LimitsSpec()
PROGRESS_FIELDS = ("step", "num_steps", "loss", "images_per_s", "eta_s", "phase", "detail")

log = logging.getLogger(__name__)
T = TypeVar("T")
Gone = Callable[[], bool]
"""Whether the cluster that an attempt runs on has ended."""


class Attempt:
    """An attempt at a job, shared by its driver and its work.

    While it runs, the driver is the only writer of the job's ``status.json``. ``drive`` claims the
    attempt, writes a heartbeat until ``work`` returns its result or raises, and then writes the
    final status. Each heartbeat copies the progress that the work wrote into the status.
    """

    tracker: Tracker
    """The job's tracking run; set once the work has been prepared."""

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
        self._gpu_hours: Callable[[], float] | None = None
        self._status: Status  # from the claim on
        self._ended = threading.Event()
        self._lock = threading.Lock()
        self._phase, self._detail = "starting", ""
        self._eta_s: float | None = None
        self._waits_for, self._waited_s = "", 0.0
        self._superseded = False
        self._status = Status()
        self._reports: list[str] = []

    @cached_property
    def job(self) -> Job:
        """The job as it was submitted."""
        return self.resolved.job

    def phase(self, name: str, detail: str = "", eta_s: float | None = None) -> None:
        """Sets the phase in the status, such as ``evaluating``, how far it is, and its ETA in s.

        "" shows the phase of the progress.
        """
        self._phase, self._detail, self._eta_s = name, detail, eta_s

    def waiting(self, what: str) -> None:
        """Says that the work waits for machines, and for which; "" once it has them.

        Meanwhile neither running time nor GPU hours are counted, but ``limits.queue_hours``.
        """
        self._waits_for = what

    @property
    def waits(self) -> bool:
        """Whether the work has said that it waits for machines."""
        return bool(self._waits_for)

    def hold_gpus(self, count: float) -> None:
        """Counts GPU hours of ``count`` GPUs from now on: those that the workers hold."""
        self._gpus = count

    def progress(self, **fields: Any) -> None:
        """Writes the progress of the work: any of ``PROGRESS_FIELDS``."""
        with suppress(Unreachable):  # the next one says more
            self.folder.write_progress(self.number, fields)

    def report(self, line: str) -> None:
        """Logs a result on the way, such as an evaluation; who follows the job is shown it too."""
        log.info("%s", line)
        with self._lock:
            self._reports.append(line)
        with suppress(ColddiffError):  # the next one writes it too
            self.folder.write_reports(self.number, self._reports)

    def scored(self, score: tuple[str, float] | None) -> None:
        """Shows the path and value of a metric in lists of jobs, such as ``Verb.score`` returns."""
        if score is not None:
            with self._lock:
                metric, value = score
                self._status = replace(self._status, score_metric=metric, score=value)

    def reached(self, step: int, **more: Any) -> None:
        """Writes the exact final step: progress is only written periodically."""
        outcome = {"step": step, **more}
        self.retried(lambda: self.folder.write_outcome(self.number, outcome), "the final step")

    def retried(self, work: Callable[[], T], what: str) -> T:
        """Returns ``work()``, retried while its store is away: no outage may lose what is done."""
        return call_with_retry(work, what, VERDICT_RETRY_S)

    def count_gpu_hours(self, spent: Callable[[], float]) -> None:
        """Takes GPU hours, over all attempts, from ``spent``: those of other jobs it runs."""
        self._gpu_hours = spent

    def stop_requested(self) -> bool:
        """Whether a user, a limit or a signal has requested a stop of this attempt.

        What cannot be found out now counts as no.
        """
        try:
            return self.folder.stop_requested(self.number)
        except Unreachable:
            return False

    def superseded(self) -> bool:
        """Whether there is a later attempt; what cannot be found out now counts as no."""
        if not self._superseded:
            with suppress(ColddiffError):
                self._superseded = self.folder.superseded(self.number)
        return self._superseded

    def request_stop(self) -> None:
        """Requests a stop of this attempt, after a checkpoint if its verb takes any."""
        self.folder.request_stop(self.number, STOP_GRACE_S)

    def keep_picture(self, name: str, data: bytes) -> None:
        """Stores a picture in the job's folder and, with ``tracking.images``, in its run."""
        kept = partial(keep_picture, self.resolved, self.folder, self.tracker, name, data)
        self.pictures.append(self.retried(kept, name))

    def drive(
        self,
        work: Callable[[], dict[str, Any]],
        gone: Gone = lambda: False,
        last_words: Callable[[Status], None] = lambda status: None,
    ) -> int:
        """Runs ``work`` as this attempt; returns exit code 0 (done), 1 (failed) or 4 (stopped).

        ``last_words`` gets the final status before it is written: who waits for that finds what
        was said of it. An error is no failure of the job where ``gone`` says that its cluster has
        ended: it is then lost, or stopped if that was requested, as where its driver ended too.

        The message is in the status. A KeyboardInterrupt ends the attempt as stopped and is
        re-raised. Raises ColddiffError if the attempt has, or had, another driver.
        """
        self._claim()
        beat = threading.Thread(target=self._beat, name="heartbeat", daemon=True)
        beat.start()
        interrupted, final = None, None
        try:
            state, message = self._work(work, gone)
            final = self._final(state, message)
            last_words(final)
        except KeyboardInterrupt as error:
            interrupted, final = error, None
            state, message = "stopped", f"interrupted; {AGAIN}"
        finally:
            self._ended.set()
            beat.join(timeout=30)
        ended = final or self._final(state, message)
        self.retried(lambda: self._end(ended), "the final status")
        if interrupted:
            raise interrupted
        return EXIT_CODES[state]

    @property
    def status(self) -> Status:
        """The status as it was last written."""
        return self._status

    def _claim(self) -> None:
        """Becomes the driver of this attempt; ColddiffError if it has, or had, another one."""
        before = self.folder.status()
        claimed = self.folder.claim(self.number, claim := this_claimant())
        # Claimed for us by a client, which has written its status; else by another driver.
        ours = before is not None and before.attempt == self.number and not _has_begun(before)
        if not (claimed or ours) or self.folder.superseded(self.number):
            raise ColddiffError(
                f"attempt {self.number} of {self.resolved.id} has or had another driver; "
                f"`colddiff status {self.resolved.id}` shows it"
            )
        before, now = before or Status(), time.time()
        self._status = Status(
            state="running",
            attempt=self.number,
            step=before.step,
            num_steps=VERBS[self.resolved.verb].requested_extent(self.job),
            heartbeat=now,
            started=before.started or now,
            running_s=before.running_s,
            waiting_s=before.waiting_s,
            gpu_hours=before.gpu_hours,
            score=before.score,
            score_metric=before.score_metric,
            phase=self._phase,
            user=claim["user"] if claimed else before.user,
            **this_process(),
        )
        self._last_beat = time.monotonic()
        self.folder.write_status(self._status)
        # Now, and not at the first heartbeat: a short job would be at its end by then.
        self._enforce_limits()

    def _final(self, state: State, message: str) -> Status:
        """The final status, of what its workers have left."""

        def left() -> dict[str, Any]:
            self._update()
            return self.folder.outcome(self.number) or {}

        step = self.retried(left, "how it ended").get("step", self._status.step)
        return replace(self._status, state=state, message=message, phase="", eta_s=None, step=step)

    def _end(self, final: Status) -> None:
        # Its heart went on beating: the times are those of now.
        with self._lock:
            self._status = replace(
                self._status,
                state=final.state,
                message=final.message,
                phase="",
                eta_s=None,
                step=final.step,
            )
            self._write_status()

    def _work(self, work: Callable[[], dict[str, Any]], gone: Gone) -> tuple[State, str]:
        try:
            result = work()
            self.retried(lambda: self.folder.write_result(result), "the result")
        except Stopped as stopped:
            return "stopped", self._limited(stopped) if self._limit else str(stopped)
        except Exception as error:
            if gone():
                log.info("its cluster is gone: %s", error)
                return of_lost("its cluster is gone", requested=self.stop_requested())
            if isinstance(error, ColddiffError):
                return "failed", str(error)
            log.error("%s", traceback.format_exc().rstrip())
            return "failed", f"{type(error).__name__}: {' '.join(str(error).split())}"
        return "done", ""

    def _beat(self) -> None:
        while not self._ended.wait(HEARTBEAT_S / 2):
            try:
                self._update()
            except ColddiffError:
                # A temporary outage of the store must not end the work; the next beat retries.
                continue

    def _update(self) -> None:
        progress = self.folder.progress(self.number)
        known = {name: progress[name] for name in PROGRESS_FIELDS if name in progress}
        if self._phase:
            known |= {"phase": self._phase, "eta_s": self._eta_s}
            known |= {"detail": self._detail} if self._detail else {}
        waits_for = self._waits_for
        if waits_for:
            known |= {"phase": WAITING, "detail": waits_for, "eta_s": None, "images_per_s": None}
        elsewhere = self._gpu_hours() if self._gpu_hours else None
        with self._lock:
            # Not by the clock, which may be set while the job runs.
            now = time.monotonic()
            spent, self._last_beat = now - self._last_beat, now
            waited, ran = (spent, 0.0) if waits_for else (0.0, spent)
            self._waited_s += waited
            gpu_hours = self._status.gpu_hours + self._gpus * ran / 3600
            self._status = replace(
                self._status,
                **{"phase": "starting workers", "detail": "", **known},
                heartbeat=time.time(),
                reports=len(self._reports),
                running_s=self._status.running_s + ran,
                waiting_s=self._status.waiting_s + waited,
                gpu_hours=gpu_hours if elsewhere is None else elsewhere,
            )
            self._write_status()
        self._enforce_limits()

    def _write_status(self) -> None:
        # A superseded driver that is still alive must not overwrite its successor's status.
        self._superseded = self._superseded or self.folder.superseded(self.number)
        if not self._superseded:
            self.folder.write_status(self._status)

    def _enforce_limits(self) -> None:
        if self._limit:
            return
        for name, spent in (
            ("hours", self._status.running_s / 3600),
            ("gpu_hours", self._status.gpu_hours),
            # Of this attempt: who submits the job again is ready to wait again.
            ("queue_hours", self._waited_s / 3600),
        ):
            allowed = getattr(self._limits, name)
            if allowed is not None and spent >= allowed:
                self._limit = f"limits.{name}"
                self.request_stop()

    def _limited(self, stopped: Stopped) -> str:
        """Why a limit stopped it; the same job alone would stop at once, with what it has spent."""
        allowed = getattr(self._limits, self._limit.removeprefix("limits."))
        reached = str(stopped).removesuffix(f"; {AGAIN}")
        # Each attempt may wait as long again.
        more = f"submit the same job with a larger {self._limit} to continue"
        way = AGAIN if self._limit == "limits.queue_hours" else more
        return f"{self._limit}={allowed:g} reached: {reached}; {way}"


def _has_begun(status: Status) -> bool:
    """Whether a driver has ever run the attempt: a client may call lost what was only slow."""
    never = status.state == "queued" or (status.state == "lost" and not status.pid)
    return not never
