"""One attempt at a job: claimed, kept alive by a heartbeat, ended by exactly one verdict."""

from __future__ import annotations

import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from colddiff.errors import ColddiffError, Stopped
from colddiff.jobs.folder import EXIT_CODES, HEARTBEAT_S, JobFolder, State, Status
from colddiff.jobs.job import LimitsSpec
from colddiff.retry import patiently

STOP_GRACE_S = 300.0
VERDICT_PATIENCE_S = 600.0
NO_LIMITS = LimitsSpec()
PROGRESS_FIELDS = ("step", "num_steps", "loss", "images_per_s", "eta_s", "phase", "detail")


class Attempt:
    """The driver's side of an attempt: the only writer of the job's ``status.json`` meanwhile.

    ``run`` claims the attempt, beats until ``work`` returns its result or raises, and writes what
    came of it. Progress that rank 0 writes is taken into the status with each beat.
    """

    def __init__(
        self,
        folder: JobFolder,
        attempt: int,
        *,
        num_steps: int,
        gpus: float = 0.0,
        limits: LimitsSpec = NO_LIMITS,
    ) -> None:
        self.folder, self.attempt = folder, attempt
        self._limits = limits
        self._limit = ""
        self._gpus = gpus
        self._num_steps = num_steps
        self._ended = threading.Event()
        self._lock = threading.Lock()
        self._phase = "starting"
        self._superseded = False

    def run(self, work: Callable[[], dict[str, Any]], claim: dict[str, Any]) -> int:
        """Exit code of the attempt: 0 done, 1 failed, 4 stopped; the message is in the status."""
        self.folder.claim(self.attempt, {**claim, "time": time.time()})
        before = self.folder.status()
        now = time.time()
        self._status = Status(
            state="running",
            attempt=self.attempt,
            step=before.step if before else 0,
            num_steps=self._num_steps,
            heartbeat=now,
            started=(before.started if before else None) or now,
            running_s=before.running_s if before else 0.0,
            gpu_hours=before.gpu_hours if before else 0.0,
            phase=self._phase,
        )
        self._last_beat = now
        self.folder.write_status(self._status)
        beat = threading.Thread(target=self._beat, name="heartbeat", daemon=True)
        beat.start()
        try:
            state, message = self._work(work)
        finally:
            self._ended.set()
            beat.join(timeout=30)
        _patiently(lambda: self._end(state, message))
        return EXIT_CODES[state]

    def _end(self, state: State, message: str) -> None:
        self._update()
        outcome = self.folder.outcome(self.attempt) or {}
        with self._lock:
            self._status = replace(
                self._status,
                state=state,
                message=message,
                phase="",
                eta_s=None,
                # Rank 0 tells its progress now and then; where it ended it tells exactly.
                step=outcome.get("step", self._status.step),
            )
            self._write_status()

    def phase(self, words: str) -> None:
        """Says what the attempt does just now, such as ``evaluating``; "" leaves it to rank 0."""
        self._phase = words

    def _work(self, work: Callable[[], dict[str, Any]]) -> tuple[State, str]:
        try:
            result = work()
            _patiently(lambda: self.folder.write_result(result))
        except Stopped as stopped:
            return "stopped", f"{self._limit}: {stopped}" if self._limit else str(stopped)
        except ColddiffError as error:
            return "failed", str(error)
        except Exception as error:
            traceback.print_exc()
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
        progress = self.folder.progress(self.attempt)
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
        self._mind_limits()

    def _write_status(self) -> None:
        # A driver that was taken for dead must not write over what its successor says.
        self._superseded = self._superseded or self.folder.superseded(self.attempt)
        if not self._superseded:
            self.folder.write_status(self._status)

    def _mind_limits(self) -> None:
        if self._limit:
            return
        for name, spent in (
            ("hours", self._status.running_s / 3600),
            ("gpu_hours", self._status.gpu_hours),
        ):
            allowed = getattr(self._limits, name)
            if allowed is not None and spent >= allowed:
                self._limit = f"limits.{name}={allowed:g} reached"
                self.folder.request_stop(self.attempt, STOP_GRACE_S)


def _patiently(write: Callable[[], None]) -> None:
    # What hours of work came to is not lost to a store that is away just now.
    patiently(write, "the verdict", VERDICT_PATIENCE_S, lambda line: None)
