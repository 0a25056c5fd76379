"""GPU hours of a job that runs others: those of its training jobs, over all their attempts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress

from colddiff.errors import ColddiffError
from colddiff.jobs.folder import JobFolder
from colddiff.ports import Store

Trainings = Callable[[], Mapping[str, bool]]
"""Ids of training jobs, and whether each is running."""


class GpuHours:
    """Sums what the status of each training job says; asked again and again while they run."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._sources: list[Trainings] = []
        self._hours: dict[str, float] = {}
        self._running: set[str] = set()

    def include(self, trainings: Trainings) -> None:
        """Counts these as well."""
        self._sources.append(trainings)

    def __call__(self) -> float:
        for trainings in self._sources:
            for job_id, running in trainings().items():
                if running or job_id in self._running or job_id not in self._hours:
                    self._read(job_id)
                # One that has ended is read once more: its status was written last.
                (self._running.add if running else self._running.discard)(job_id)
        return sum(self._hours.values())

    def of(self, job_id: str) -> float:
        """Those of one training job, as they were read last."""
        return self._hours.get(job_id, 0.0)

    def _read(self, job_id: str) -> None:
        # What cannot be read now counts as it did: a heartbeat must not end.
        with suppress(ColddiffError):
            status = JobFolder(self._store, job_id).status()
            self._hours[job_id] = status.gpu_hours if status is not None else 0.0
