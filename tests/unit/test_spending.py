"""GPU hours of a job that runs others."""

from __future__ import annotations

from colddiff.jobs.folder import JobFolder
from colddiff.jobs.segments.spending import RUNNING, GpuHours
from colddiff.jobs.status import Status
from colddiff.stores.memory_store import MemoryStore


def test_a_training_that_was_never_seen_to_run_counts() -> None:
    """It began and ended between two heartbeats; so did its next segment."""
    store, stands = MemoryStore(), {"a": "0"}
    folder = JobFolder(store, "a")
    spent = GpuHours(store)
    spent.include(lambda: dict(stands))
    assert spent() == 0
    for segments, hours in (("1", 0.5), ("2", 0.75)):
        folder.write_status(Status(state="done", gpu_hours=hours))
        stands["a"] = segments
        assert spent() == hours
    folder.write_status(Status(state="done", gpu_hours=9.0))
    assert spent() == 0.75  # not read again: nothing says that it ran
    stands["a"] = RUNNING
    assert spent() == 9.0
