"""What an attempt at a study does: trains what is left of it, and tells how all of it stands."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from colddiff.background import in_context
from colddiff.errors import ColddiffError, Stopped, Unreachable
from colddiff.jobs.attempt import Attempt
from colddiff.jobs.follow import poll_seconds
from colddiff.jobs.segments.here import RunSegments
from colddiff.jobs.segments.spending import GpuHours
from colddiff.jobs.status import AGAIN
from colddiff.tracking.open import deliver_late
from colddiff.verbs.study.job import StudyJob
from colddiff.verbs.study.members import (
    MEMBERS,
    Member,
    Trainings,
    members_of,
    read_members,
    write_members,
)
from colddiff.verbs.study.table import best_mean, over_seeds, table_lines

TABLE = "study.md"


def prepare(attempt: Attempt) -> list[Member]:
    """The trainings, read from the study as it was resolved."""
    return members_of(attempt.resolved.job_as(StudyJob))


def study(attempt: Attempt, members: list[Member], run_segments: RunSegments) -> dict[str, Any]:
    """Trains what is not done and writes the results; returns the result.

    Raises Stopped where it was stopped before the end, ColddiffError where a training failed.
    """
    began = time.monotonic()
    trainings = Trainings(attempt, members)
    total = len(members)
    if trainings.already_done or trainings.resumed:
        done, resumed = trainings.already_done, trainings.resumed
        attempt.report(f"{done} of {total} already done, {resumed} resumed")
        for line in trainings.unlike():
            attempt.report(line)
    results = _Results(attempt, trainings)

    def changed() -> None:
        results.write()
        shown()

    try:
        with _progress(attempt, trainings) as shown:
            run_segments(attempt, trainings, changed)
    finally:
        results.write()
    _refuse_unfinished(attempt, trainings)
    attempt.reached(total)
    ids = [member.id for member in members]
    deliver_late(attempt.resolved.storage, attempt.resolved.tracking_uri, *ids)
    records = results.records()
    jobs = over_seeds(records)
    return {
        "step": total,
        "jobs": ids,
        "members": records,
        "over_seeds": jobs,
        "table": f"{attempt.folder.uri}/{TABLE}",
        "metrics": _metrics(total, jobs),
        "time": {"study_s": time.monotonic() - began},
    }


def _refuse_unfinished(attempt: Attempt, trainings: Trainings) -> None:
    total, failed = len(trainings.members), trainings.failed()
    if not trainings.exhausted:
        attempt.reached(trainings.done, stopped=True)
        raise Stopped(f"stopped with {trainings.done} of {total} jobs done; {AGAIN}")
    if not failed:
        return
    attempt.reached(trainings.done)
    for line in table_lines([trainings.record(member) for member in trainings.members]):
        attempt.report(line)
    why = "; ".join(f"{job_id}: {error}" for job_id, error in failed.items())
    raise ColddiffError(
        f"{len(failed)} of {total} jobs failed ({trainings.done} done): {why}. `colddiff logs "
        "JOB` shows more; submit the same study again to try those that failed, nothing else"
    )


class _Results:
    """What a study tells while it runs: ``members.json``, its table, GPU hours, its tracking run.

    GPU hours that a training had taken before the study met it are none of the study's.
    """

    def __init__(self, attempt: Attempt, trainings: Trainings) -> None:
        self._attempt, self._trainings = attempt, trainings
        self._records: dict[int, dict[str, Any]] = {}
        self._logged = -1
        known = read_members(attempt.folder).get("gpu_hours_before") or {}
        spent = GpuHours(attempt.folder.store)
        spent.include(trainings.trainings)
        if uses_gpus := any(member.job.resources.num_gpus for member in trainings.members):
            spent()
        self._before = {
            member.id: float(known.get(member.id, spent.of(member.id)))
            for member in trainings.members
        }
        self.write()
        if uses_gpus:
            attempt.count_gpu_hours(lambda: max(0.0, spent() - sum(self._before.values())))

    def records(self) -> list[dict[str, Any]]:
        """All trainings as they stand; each is read while it runs, and when its state changes."""
        for member in self._trainings.members:
            known, state = self._records.get(member.number), self._trainings.state(member)
            if known is None or state == "running" or known["state"] != state:
                self._records[member.number] = self._trainings.record(member)
        return [self._records[member.number] for member in self._trainings.members]

    def write(self) -> None:
        """Writes how the study stands into its folder and its run, unless the store is away."""
        attempt, records = self._attempt, self.records()
        with suppress(Unreachable):
            data = write_members(attempt.folder, records, gpu_hours_before=self._before)
            text = "".join(f"{line}\n" for line in table_lines(records, markdown=True))
            attempt.folder.store.put(attempt.folder.key(TABLE), text.encode())
            if self._trainings.done != self._logged:
                self._logged = self._trainings.done
                attempt.tracker.log_artifact(MEMBERS, data)
                attempt.tracker.log_artifact(TABLE, text.encode())
                attempt.tracker.log_metrics(
                    _metrics(self._logged, over_seeds(records)), self._logged
                )


def _metrics(done: int, jobs: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """``study/jobs`` and, where ``jobs`` can be compared, ``study/best``: their best mean."""
    best = best_mean(jobs)
    return {"study/jobs": float(done), **({"study/best": best[1]} if best else {})}


@contextmanager
def _progress(attempt: Attempt, trainings: Trainings) -> Iterator[Callable[[], None]]:
    """Within ``with``, the progress has the trainings done and the steps of those that run.

    What it yields writes it at once.
    """
    began, before, total = time.monotonic(), trainings.done, len(trainings.members)
    ended = threading.Event()

    def show() -> None:
        made, passed = trainings.done - before, time.monotonic() - began
        running = [
            f"{member.id} at step {trainings.steps(member)}/{member.job.num_steps}"
            for member in trainings.running()
        ]
        with suppress(Unreachable):  # the next one is written again
            attempt.progress(
                step=trainings.done,
                num_steps=total,
                phase="training",
                detail=", ".join(running) or "nothing runs",
                eta_s=passed / made * (total - trainings.done) if made else None,
            )

    def watch() -> None:
        while not ended.wait(poll_seconds(attempt.folder)):
            show()

    thread = threading.Thread(target=in_context(watch), name="study-progress", daemon=True)
    thread.start()
    try:
        yield show
    finally:
        ended.set()
        thread.join(timeout=30)
        show()
