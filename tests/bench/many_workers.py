"""What a thousand workers ask of a driver and of the store: counted here, multiplied on paper."""

from __future__ import annotations

import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from colddiff.data.readers.lanes import lane_count
from colddiff.jobs.attempt import Attempt
from colddiff.jobs.folder import JobFolder
from colddiff.jobs.resolve import ResolvedJob
from colddiff.jobs.work_queue import Finished, WorkQueue
from colddiff.ports import StoredObject
from colddiff.stores.local_store import LocalStore
from colddiff.tracking.mlflow_tracker import open_run
from colddiff.tracking.relay import join_run
from colddiff.verbs.generate.commit import commit_tar, packed_tar
from colddiff.verbs.train.job import TrainJob
from colddiff.verbs.train.reporter import Reporter
from tests.bench.listing import make_jobs

WATCHED_S = 30.0
SHARD_S, IN_FLIGHT = 20.0, 2
USD = {"put": 5e-6, "list": 5e-6, "get": 4e-7, "size": 4e-7}
"""Of a request to S3 Standard in us-east-1."""


class Counted(LocalStore):
    """A folder that counts the requests that it would be in S3."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.seen: Counter[str] = Counter()
        self._seen_lock = threading.Lock()

    def count(self, name: str) -> None:
        with self._seen_lock:
            self.seen[name] += 1

    def get(self, key: str) -> bytes:
        self.count("get")
        return super().get(key)

    def put(self, key: str, data: bytes) -> None:
        self.count("put")
        super().put(key, data)

    def put_new(self, key: str, data: bytes) -> None:
        self.count("put")
        super().put_new(key, data)

    def size(self, key: str) -> int | None:
        self.count("size")
        return super().size(key)

    def list(self, prefix: str = "") -> Iterator[StoredObject]:
        self.count("list")
        return super().list(prefix)


def many_workers(workers: int) -> dict[str, Any]:
    """Requests of one job an hour, and of ``workers`` workers that generate; a queue's CPU."""
    with tempfile.TemporaryDirectory() as name:
        training = _training(Counted(Path(name) / "runs"))
        shard = _shard(Counted(Path(name) / "samples"))
    task_s = _queue_task_s(workers)
    shards_s = workers / SHARD_S
    return {
        "workers": f"{workers:,}, on paper from what is counted here",
        **{f"a training's {kind} an hour": number for kind, number in training.items()},
        "a training's requests, USD an hour": _usd(training),
        f"{workers:,} trainings' requests a second": workers * sum(training.values()) / 3600,
        f"{workers:,} trainings' requests, USD an hour": workers * _usd(training),
        **_shards_of_a_step(workers),
        "generate: shards a second": shards_s,
        "generate: a shard's requests": float(sum(shard.values())),
        "generate: workers' requests an hour": 3600 * shards_s * sum(shard.values()),
        "generate: workers' requests, USD an hour": 3600 * shards_s * _usd(shard),
        "driver: CPU ms a shard, without Ray": 1000 * task_s,
        "driver: CPU of a core, without Ray": shards_s * task_s,
    }


def _shards_of_a_step(workers: int) -> dict[str, float]:
    """What a step of 32 images a worker fetches of a set with 1,000 images in each shard."""
    batch, per_shard = 32 * workers, 1000
    lanes = lane_count(batch, 1_000_000)
    of_a_lane = batch / lanes / per_shard
    return {
        "training: lanes": float(lanes),
        "training: shards of a step": batch / per_shard,
        "training: shards fetched, a worker a machine": workers * of_a_lane,
        "training: shards fetched, 8 workers a machine": max(lanes, workers / 8) * of_a_lane,
    }


def _usd(requests: dict[str, float]) -> float:
    return sum(USD[kind] * number for kind, number in requests.items())


def _training(store: Counted) -> dict[str, float]:
    """Requests an hour of a driver and of rank 0, which logs every second, for all workers."""
    (job_id,) = make_jobs(store.uri, 1)
    folder = JobFolder(store, job_id)
    job = TrainJob(data="/data")
    resolved = ResolvedJob(job_id, "a", job, store.uri, "", {}, 1.0, {}, {})
    attempt = Attempt(resolved, 2, folder=folder)
    counted: dict[str, float] = {}

    def work() -> dict[str, Any]:
        driver = open_run(f"sqlite:///{store.root}/mlflow.db", "bench", job_id, "a", spool=store)
        worker = join_run("bench", job_id, "a", spool=store)
        with Reporter(folder, 2, active=True) as reporter, closing(driver), closing(worker):
            time.sleep(2)  # as it starts it writes more
            before, began = Counter(store.seen), time.monotonic()
            flushed = began
            while time.monotonic() - began < WATCHED_S:
                reporter.report({"step": 1, "num_steps": 700})
                worker.log_metrics({"train/loss_l1": 0.5}, int(time.monotonic()))
                if time.monotonic() - flushed >= job.snapshot_every_s:
                    flushed = time.monotonic()
                    worker.flush()
                time.sleep(1)
            spent = time.monotonic() - began
            for kind in USD:
                counted[kind] = 3600 * (store.seen[kind] - before[kind]) / spent
        return {}

    attempt.drive(work)
    return counted


def _shard(store: Counted) -> dict[str, float]:
    """Requests of a worker for one shard of samples."""
    task = _Task(0)
    commit_tar(store, packed_tar(task, [("000000000000.png", b"image")]), {})  # type: ignore[arg-type]
    return {kind: float(number) for kind, number in store.seen.items()}


@dataclass(frozen=True)
class _Task:
    number: int
    count: int = 1

    @property
    def key(self) -> str:
        return f"shard-{self.number:06d}.tar"


class _Busy:
    """``workers`` actors of two tasks each, one of which ends whenever they are waited for."""

    def __init__(self, workers: int) -> None:
        self._held = dict.fromkeys(range(workers), 0)
        self._tasks: dict[int, tuple[int, _Task]] = {}

    def room(self) -> int:
        return sum(IN_FLIGHT - held for held in self._held.values())

    def give(self, task: _Task) -> None:
        number = min(self._held, key=lambda n: self._held[n])
        self._held[number] += 1
        self._tasks[task.number] = number, task

    def wait(self, timeout_s: float) -> list[Finished[_Task, int]]:
        if not self._tasks:
            return []
        number, task = self._tasks.pop(next(iter(self._tasks)))
        self._held[number] -= 1
        return [Finished(task, task.number)]

    def begun(self) -> list[float]:
        return []

    def close(self) -> None:
        pass


def _queue_task_s(workers: int) -> float:
    """CPU seconds of a driver's queue for a task, where tasks end one by one."""
    count = 5 * workers
    queue: WorkQueue[_Task, int] = WorkQueue(
        map(_Task, range(count)),
        _Busy(workers),
        max_failures=3,
        on_report=lambda task, report: None,
    )
    began = time.process_time()
    queue.run()
    return (time.process_time() - began) / count
