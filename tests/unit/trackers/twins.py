"""The same attempts at one job, tracked in MLflow and in memory, and what is there afterwards."""

from __future__ import annotations

import io
import json
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

from PIL import Image

from colddiff.ports import Store, TrackedDataset, Tracker
from colddiff.stores.memory_store import MemoryStore
from colddiff.tracking.memory_tracker import MemoryRun, MemoryTracker, MetricRow
from colddiff.tracking.mlflow_outbox import replay
from colddiff.tracking.mlflow_service import client
from colddiff.tracking.mlflow_tracker import open_run
from colddiff.tracking.relay import join_run
from colddiff.tracking.session import Session

EXPERIMENT = "tests"


class MlflowTwin:
    """Attempts at one job, tracked in a real sqlite store, and what is there afterwards."""

    def __init__(self, uri: str, store: Store | None = None) -> None:
        self.uri = uri
        self.store = store or MemoryStore(uuid4().hex)
        self.job_id = f"train-test-{uuid4().hex[:8]}"

    def open(self, uri: str | None = None, **options: Any) -> Session:
        known: dict[str, Any] = {"spool": self.store, "timeout_s": 20.0}
        return open_run(uri or self.uri, EXPERIMENT, self.job_id, "test", **(known | options))

    def join(self) -> Session:
        """A session of another process of the job."""
        return join_run(EXPERIMENT, self.job_id, "test", spool=self.store)

    def replay(self) -> int:
        return replay(self.store, self.job_id, self.uri)

    def runs(self) -> list[str]:
        api = client(self.uri)
        experiment = api.get_experiment_by_name(EXPERIMENT)
        assert experiment is not None
        found = api.search_runs(
            [experiment.experiment_id], f"tags.`colddiff.job_id` = '{self.job_id}'"
        )
        return [run.info.run_id for run in found]

    def read(self) -> MemoryRun:
        api = client(self.uri)
        (run_id,) = self.runs()
        run = api.get_run(run_id)
        rows = [
            MetricRow(m.key, m.value, m.step, m.timestamp)
            for key in run.data.metrics
            for m in api.get_metric_history(run_id, key)
        ]
        folder = Path(run.info.artifact_uri)
        artifacts = {
            str(path.relative_to(folder)): path.read_bytes()
            for path in folder.rglob("*")
            if path.is_file()
        }
        tags = dict(run.data.tags)
        images, others = {}, {}
        for name, data in artifacts.items():
            series = re.fullmatch(r"images/(\w+)\+step\+(\d+)\+timestamp\+.*(png|webp)", name)
            if series is None:
                others[name] = data
            elif series[3] == "png":
                images[series[1], int(series[2])] = data
        datasets: dict[str, TrackedDataset] = {}
        inputs: Any = run.inputs
        for given in inputs.dataset_inputs:
            (use,) = (tag.value for tag in given.tags)
            told = json.loads(given.dataset.profile)
            assert given.dataset.digest == told["digest"][:36]
            uri = json.loads(given.dataset.source)["uri"]
            found = TrackedDataset(given.dataset.name, told["digest"], uri, use, told["num_images"])
            assert datasets.setdefault(use, found) is found, "logged twice"
        return MemoryRun(
            run_id,
            run.info.status,
            dict(run.data.params),
            tags,
            rows,
            others,
            images,
            datasets,
        )


class MemoryTwin:
    """The same in memory."""

    def __init__(self) -> None:
        self.run = MemoryRun()

    def open(self) -> Tracker:
        return MemoryTracker(self.run)

    def read(self) -> MemoryRun:
        return self.run


Twin = MlflowTwin | MemoryTwin


def wait_for(condition: Callable[[], bool], timeout_s: float = 60.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def png(shade: int) -> bytes:
    """A small grey image."""
    buffer = io.BytesIO()
    Image.new("L", (8, 8), shade).save(buffer, "PNG")
    return buffer.getvalue()


def log_ten_steps(tracker: Tracker) -> None:
    tracker.log_params({"seed": "0"})
    for step in range(10):
        tracker.log_metrics({"train/loss_l1": step / 3}, step)
    tracker.log_artifact("grid.png", bytes(range(256)))
