"""Where a start of a training begins: the state that all of its ranks go on from."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import torch

from colddiff.checkpoints.format import Checkpoints, Snapshot
from colddiff.checkpoints.snapshots import Snapshots
from colddiff.checkpoints.writer import CheckpointWriter
from colddiff.errors import CheckpointError, RecordError
from colddiff.jobs.folder import JobFolder, is_deleted
from colddiff.ports import WorkerContext

log = logging.getLogger(__name__)

RESUMED = ("model", "ema", "optimizer")


class Beginning:
    """Fences off earlier starts of the job, and finds the newest state that they left."""

    def __init__(
        self,
        ctx: WorkerContext,
        folder: JobFolder,
        attempt: int,
        checkpoints: Checkpoints,
        snapshots: Snapshots,
        writer: CheckpointWriter,
    ) -> None:
        self._ctx, self._folder, self._attempt = ctx, folder, attempt
        self._checkpoints, self._snapshots, self._writer = checkpoints, snapshots, writer

    def find(self) -> Snapshot | None:
        """A snapshot in the memory of the machine, if all ranks can read one that is later than
        every checkpoint; else the newest undamaged checkpoint; None for the first step.

        A collective: the same on all ranks.
        """
        if self._ctx.rank != 0:
            return self._remembered(self._ctx.broadcast(None)) or self._checkpoint()
        record: dict[str, Any] = {"world_size": self._ctx.world_size, "time": time.time()}
        token = self._folder.take_fencing_token(self._attempt, record)
        self._writer.begin(self._attempt, token)
        newest = max(self._checkpoints.steps(), default=0)
        path = self._snapshots.newest(newest, self._is_of_this_job)
        start = _name(self._attempt, token, record)
        self._snapshots.begin(start, lambda job: is_deleted(self._folder.store, job))
        found = self._remembered(self._ctx.broadcast(path))
        what = "snapshot in memory" if found else "checkpoint"
        found = found or self._checkpoints.newest(RESUMED)
        step = found.step if found else 0
        self._checkpoints.clear_after(step, self._writer.superseded)
        # Of another attempt only once: by its first start.
        before = [self._attempt, self._attempt - 1] if token == 1 else [self._attempt]
        repeated = max(0, self._trained(before) - step)
        record |= {"step": step, "repeated_steps": repeated}
        self._folder.write_fence(self._attempt, token, record)
        if what == "checkpoint":
            self._ctx.broadcast(step)
        if found:
            log.info("resuming from the %s of step %d", what, step)
        return found

    def _checkpoint(self) -> Snapshot | None:
        """The one that rank 0 has chosen."""
        step = int(self._ctx.broadcast(None))
        return self._checkpoints.load(step, RESUMED) if step else None

    def _remembered(self, path: str | None) -> Snapshot | None:
        """The snapshot in the file ``path``; None unless all ranks can read it."""
        if path is None:
            return None
        found = None
        try:
            found = self._snapshots.read(path, RESUMED)
        except CheckpointError as error:
            log.info("rank %d goes back to a checkpoint: %s", self._ctx.rank, error)
        here = torch.tensor([float(found is not None)], device=self._ctx.device)
        return found if self._ctx.all_reduce(here).item() == self._ctx.world_size else None

    def _trained(self, attempts: list[int]) -> int:
        """The step that was reported last, in the first of ``attempts`` that reported any."""
        for attempt in attempts:
            with suppress(RecordError):
                if (step := self._folder.progress(attempt).get("step")) is not None:
                    return int(step)
        return 0

    def _is_of_this_job(self, start: str) -> bool:
        """Whether ``start`` was one of this job; one that was deleted since had others."""
        attempt, token, _ = start.split("-")
        try:
            record = self._folder.fence(int(attempt), int(token))
        except RecordError:
            return False
        return "time" in record and _name(int(attempt), int(token), record) == start


def _name(attempt: int, token: int, record: Mapping[str, Any]) -> str:
    """The name of a start for snapshots: no other start of any job has it."""
    return f"{attempt}-{token}-{record['time']:.6f}"
