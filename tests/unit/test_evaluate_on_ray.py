"""An evaluation's batch groups on workers that fail: which failures are retried, what is said."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pytest

from colddiff.errors import ColddiffError, DataError, StoreError
from colddiff.evaluation.partition import BatchGroup, BatchInOnePart, group_batches
from colddiff.jobs import work_queue
from colddiff.jobs.work_queue import Failure, Finished, attempted
from colddiff.machine.logged_progress import LOG_EVERY_S
from colddiff.retry import Backoff
from colddiff.verbs.evaluate import on_ray
from colddiff.verbs.evaluate.job import EvaluateJob
from colddiff.verbs.evaluate.work import Progress

Work = Callable[[BatchGroup], "Failure | Sums"]


@dataclass(frozen=True)
class Sums:
    """Sums over images: their count."""

    count: int

    def merge(self, other: Sums) -> Sums:
        return Sums(self.count + other.count)


class FakeWorkers:
    """One worker, whose tasks end as ``work`` says."""

    def __init__(self, work: Work) -> None:
        self._work = work
        self._held: list[BatchGroup] = []
        self.tries = 0

    def room(self) -> int:
        return 1 - len(self._held)

    def give(self, task: BatchGroup) -> None:
        self._held.append(task)

    def wait(self, timeout_s: float) -> list[Finished[BatchGroup, Any]]:
        ended = [Finished(task, attempted(self._work, task)) for task in self._held]
        self.tries += len(ended)
        self._held = []
        return ended

    def begun(self) -> list[float]:
        return [2.0 for _ in self._held]

    def close(self) -> None: ...


@pytest.fixture
def evaluate(monkeypatch: pytest.MonkeyPatch) -> Callable[[Work], tuple[FakeWorkers, Any]]:
    monkeypatch.setattr(work_queue, "RETRY", Backoff(0.0, 0.0))

    def run(work: Work) -> tuple[FakeWorkers, Any]:
        workers = FakeWorkers(work)
        monkeypatch.setattr(on_ray, "RayWorkers", lambda *_, **__: workers)
        job = EvaluateJob(samples="there", reference="here")
        resolved = SimpleNamespace(job_as=lambda _: job)
        attempt: Any = SimpleNamespace(
            resolved=resolved, stop_requested=lambda: False, progress=lambda **fields: None
        )
        batches = [range(start, start + 4) for start in range(0, 20, 4)]
        subject: Any = SimpleNamespace(evaluation=SimpleNamespace(batches=lambda: batches))
        try:
            return workers, on_ray.sum_on_ray(attempt, subject, Progress(attempt, 20))
        except ColddiffError as error:
            return workers, str(error)

    return run


def test_an_error_of_ours_ends_it_at_once_in_its_own_words(evaluate: Any) -> None:
    def work(group: BatchGroup) -> Sums:
        if group.number == 1:
            raise DataError("poison part")
        return Sums(group.num_images)

    workers, found = evaluate(work)
    assert (workers.tries, found) == (2, "poison part")


def test_a_worker_that_always_dies_ends_it_after_max_failures_deaths(evaluate: Any) -> None:
    workers, found = evaluate(lambda group: Failure("death", "its worker died"))
    assert (workers.tries, found) == (3, "batch group 0 could not be evaluated: its worker died")


def test_a_store_that_is_away_for_a_while_does_not_end_it(evaluate: Any) -> None:
    away = iter(range(5))

    def work(group: BatchGroup) -> Sums:
        if next(away, None) is not None:
            raise StoreError("away")
        return Sums(group.num_images)

    workers, found = evaluate(work)
    assert (workers.tries, found) == (10, Sums(20))


def test_progress_begins_with_the_work_and_moves_within_its_parts() -> None:
    """Written at once as a worker has begun, then every ten seconds."""
    told: list[tuple[int, str]] = []
    attempt: Any = SimpleNamespace(
        progress=lambda **fields: told.append((fields["step"], fields["phase"]))
    )
    progress = Progress(attempt, 100)
    progress.look([])
    assert told == []
    progress.look([0.0, 0.0])
    progress.look([8.0, 4.0])
    assert told == [(0, "evaluating")]
    progress._logged -= LOG_EVERY_S
    progress.look([8.0, 4.0])
    assert told[1:] == [(12, "evaluating")]


def test_a_worker_knows_how_far_its_group_is() -> None:
    worker = on_ray.EvaluationWorker({})
    assert worker.begun() == {}
    seen: list[dict[str, float]] = []
    evaluation: Any = SimpleNamespace(batches=lambda: [range(4), range(4, 8)], at_once=1)
    opened = on_ray._Opened(evaluation, group_batches(evaluation))
    worker._opened = opened

    def sum_batch(positions: range) -> Sums:
        seen.append(worker.begun())
        return Sums(len(positions))

    evaluation.batch = lambda positions: BatchInOnePart(lambda: sum_batch(positions))
    opened.groups = [BatchGroup(0, (range(4), range(4, 8)))]
    with pytest.raises(AttributeError):  # these sums have no bytes
        worker.work(opened, {"number": 0})
    assert seen == [{"batch group 0": 0.0}, {"batch group 0": 4.0}]
