"""Background checkpoint writer: retries while the store is down, without blocking training."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from colddiff.background import Background
from colddiff.checkpoints.format import Checkpoints, Snapshot
from colddiff.checkpoints.kept import beyond_kept
from colddiff.checkpoints.tracked_addresses import log_checkpoint_addresses
from colddiff.jobs.folder import JobFolder
from colddiff.ports import Tracker
from colddiff.retry import call_with_retry

if TYPE_CHECKING:
    from colddiff.verbs.train.job import TrainJob

log = logging.getLogger(__name__)

POLL_S = 0.05
PATIENCE_S = 15.0
"""How long training waits for a write under way: longer, and the store or the tracker hangs."""


class CheckpointWriter:
    """Writes, commits and prunes in a background thread, at most one snapshot at a time.

    While the store is down it retries for ``job.store_patience_s`` seconds; checkpoints that become
    due in that time are skipped, so that training continues, and so are those that become due while
    a write hangs. What could not be written in that time, or must not be (superseded, not finite),
    sets ``failed`` at once and is raised by the next ``save`` or ``wait``.
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
        self._attempt, self._token = 0, 0
        self._retrying = self._hangs = False
        self.blocked_s = 0.0
        """Seconds for which ``save`` and ``wait`` blocked their caller."""

    def begin(self, attempt: int, token: int) -> None:
        """Writes with this fencing token from now on, until a later one supersedes it."""
        self._attempt, self._token = attempt, token

    @property
    def failed(self) -> bool:
        """Whether the next call will raise the error of a write."""
        return self._background.failed

    def superseded(self) -> bool:
        """Whether a later fencing token or attempt exists."""
        return self._folder.superseded(self._attempt, self._token)

    def save(self, step: int, take: Callable[[], Snapshot], *, needed: bool) -> None:
        """Writes the snapshot that ``take`` copies, after the previous one.

        Waits for the previous write; if that is being retried, or takes longer than ``PATIENCE_S``
        more, skips this one unless ``needed`` (the last one is).
        """
        began = time.perf_counter()
        while not needed and self._background.busy(POLL_S):
            self._hangs |= time.perf_counter() - began > PATIENCE_S
            if self._retrying or self._hangs:
                why = "waits for the store" if self._retrying else "is still being written"
                log.warning("skipping the checkpoint of step %d: the previous one %s", step, why)
                self.blocked_s += time.perf_counter() - began
                return
        self._background.wait()
        self._hangs = False
        snapshot = take()
        self._background.submit(lambda: self._write(snapshot))
        self.blocked_s += time.perf_counter() - began

    def wait(self) -> None:
        """Returns when everything is committed; raises the error of a write."""
        began = time.perf_counter()
        self._background.wait()
        self.blocked_s += time.perf_counter() - began

    def _write(self, snapshot: Snapshot) -> None:
        def write() -> None:
            # Deliver or spool everything logged so far first: after a kill, the resumed run repeats
            # only what was logged later, and nothing earlier is missing.
            self._tracker.flush()
            self._checkpoints.save(snapshot, self.superseded, f"{self._attempt}-{self._token}")
            self._checkpoints.prune(self._beyond_kept)
            log_checkpoint_addresses(self._tracker, self._checkpoints)

        what = f"checkpoint of step {snapshot.step}"
        try:
            call_with_retry(write, what, self._job.store_patience_s, on_retry=self._mark_retrying)
        finally:
            self._retrying = False

    def _mark_retrying(self) -> None:
        self._retrying = True

    def _beyond_kept(self, steps: list[int]) -> list[int]:
        return beyond_kept(self._folder, steps, self._job.keep, self._job.evaluation_interval)
