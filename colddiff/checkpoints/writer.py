"""Checkpoints written beside the training: patient with a store that is away, never in its way."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from colddiff.background import Background
from colddiff.checkpoints.format import Checkpoints, Snapshot
from colddiff.checkpoints.registration import register_checkpoints
from colddiff.jobs.folder import JobFolder
from colddiff.ports import Tracker
from colddiff.retry import patiently

if TYPE_CHECKING:
    from colddiff.verbs.train.job import TrainJob

log = logging.getLogger(__name__)

POLL_S = 0.05


class CheckpointWriter:
    """Writes, commits and prunes in a thread of its own, at most one snapshot at a time.

    While the store does not answer it tries again for ``job.store_patience_s``; checkpoints that
    come due meanwhile are left out, so that the training goes on. What could not be written in that
    time, or must not be, is an error: ``failed`` at once, raised by the next ``save`` or ``wait``.
    """

    def __init__(
        self,
        job: TrainJob,
        folder: JobFolder,
        checkpoints: Checkpoints,
        tracker: Tracker,
    ) -> None:
        self._job, self._folder, self._checkpoints = job, folder, checkpoints
        self._tracker = tracker
        self._background = Background("checkpoint-writer")
        self._attempt, self._start = 0, 0
        self._away = False
        self.held_s = 0.0
        """Seconds for which ``save`` and ``wait`` held their caller up."""

    def begin(self, attempt: int, start: int) -> None:
        """Writes for this start of this attempt from now on, until a later one fences it off."""
        self._attempt, self._start = attempt, start

    @property
    def failed(self) -> bool:
        """Whether the next call will raise what went wrong."""
        return self._background.failed

    def superseded(self) -> bool:
        """Whether a later start or attempt has taken over."""
        return self._folder.superseded(self._attempt, self._start)

    def save(self, step: int, take: Callable[[], Snapshot], *, needed: bool) -> None:
        """Writes the snapshot that ``take`` copies, after the one before.

        Waits for that one, unless the store is away and this one is not ``needed``: the last one.
        """
        began = time.perf_counter()
        while not needed and self._background.busy(POLL_S):
            if self._away:
                log.warning("no checkpoint of step %d: the one before waits for the store", step)
                self.held_s += time.perf_counter() - began
                return
        self._background.wait()
        snapshot = take()
        self._background.submit(lambda: self._write(snapshot))
        self.held_s += time.perf_counter() - began

    def wait(self) -> None:
        """Returns when everything is committed; raises what went wrong."""
        began = time.perf_counter()
        self._background.wait()
        self.held_s += time.perf_counter() - began

    def _write(self, snapshot: Snapshot) -> None:
        # What was logged up to here is delivered or spooled first: after a kill, a resumed run
        # repeats what came later, and nothing before it is missing.
        self._tracker.flush()

        def write() -> None:
            self._checkpoints.save(snapshot, self.superseded, f"{self._attempt}-{self._start}")
            self._checkpoints.prune(self._job.keep, self._spared())
            register_checkpoints(self._tracker, self._checkpoints)

        what = f"checkpoint of step {snapshot.step}"
        try:
            patiently(write, what, self._job.store_patience_s, on_retry=self._mark_away)
        finally:
            self._away = False

    def _mark_away(self) -> None:
        self._away = True

    def _spared(self) -> set[int]:
        """Steps that pruning leaves alone: the best one and those still to be evaluated."""
        steps, evaluated = self._checkpoints.steps(), self._folder.evaluated_steps()
        best = self._folder.best_step(set(steps))
        due = due_steps(steps, self._job.evaluated_every, evaluated)
        return {*due, *([] if best is None else [best])}


def due_steps(steps: list[int], every: int | None, evaluated: list[int]) -> list[int]:
    """Committed steps at multiples of ``every`` that were not evaluated yet."""
    if every is None:
        return []
    return [step for step in steps if step % every == 0 and step not in evaluated]
