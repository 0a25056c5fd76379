"""GPU hours of a job that runs others: those of its training jobs, over all their attempts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress

from colddiff.errors import ColddiffError
from colddiff.jobs.folder import JobFolder
from colddiff.ports import Store

RUNNING = "running"
Trainings = Callable[[], Mapping[str, str]]
"""Ids of training jobs, and how each stands: RUNNING, or what differs before and after a run."""


class GpuHours:
    """Sums what the status of each training job says; asked again and again while they run."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._sources: list[Trainings] = []
        self._hours: dict[str, float] = {}
        self._stood: dict[str, str] = {}

    def include(self, trainings: Trainings) -> None:
        """Counts these as well."""
        self._sources.append(trainings)

    def __call__(self) -> float:
        for trainings in self._sources:
            for job_id, stands in trainings().items():
                # One that has ended is read once more, even if it was never seen to run.
                if stands == RUNNING or self._stood.get(job_id) != stands:
                    self._read(job_id)
                self._stood[job_id] = stands
        return sum(self._hours.values())

    def of(self, job_id: str) -> float:
        """Those of one training job, as they were read last."""
        return self._hours.get(job_id, 0.0)

    def _read(self, job_id: str) -> None:
        # What cannot be read now counts as it did: a heartbeat must not end.
        with suppress(ColddiffError):
            status = JobFolder(self._store, job_id).status()
            self._hours[job_id] = status.gpu_hours if status is not None else 0.0
