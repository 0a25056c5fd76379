"""Trackers without a service: one in memory, for tests, and one that does nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from colddiff.ports import TrackedDataset
from colddiff.tracking.repeats import is_kept, is_repeat, second_value_tag
from colddiff.tracking.spool import now_ms


@dataclass(frozen=True, slots=True)
class MetricRow:
    """One logged value; ``time_ms`` since 1970."""

    key: str
    value: float
    step: int
    time_ms: int


@dataclass(slots=True)
class MemoryRun:
    """The content of a run, over all sessions that logged to it."""

    run_id: str = "memory"
    status: str = "RUNNING"
    params: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    metrics: list[MetricRow] = field(default_factory=list)
    artifacts: dict[str, bytes] = field(default_factory=dict)
    images: dict[tuple[str, int], bytes] = field(default_factory=dict)
    """PNGs by series and step."""
    datasets: dict[str, TrackedDataset] = field(default_factory=dict)
    """Image sets by what they are used for."""
    parent: str | None = None
    """Id of the job whose run this one is nested in."""

    def history(self, key: str) -> list[tuple[int, float]]:
        """(step, value) of one metric, as logged."""
        return [(row.step, row.value) for row in self.metrics if row.key == key]


class MemoryTracker:
    """Implements ``Tracker`` in memory; a second one with the same ``run`` resumes it."""

    def __init__(self, run: MemoryRun | None = None) -> None:
        self.run = MemoryRun() if run is None else run
        self.run.status = "RUNNING"
        self._earlier: dict[tuple[str, int], set[str]] = {}
        for row in self.run.metrics:
            self._earlier.setdefault((row.key, row.step), set()).add(repr(row.value))
        self._ended = False

    @property
    def run_id(self) -> str:
        return self.run.run_id

    def log_params(self, params: Mapping[str, str]) -> None:
        if self._ended:
            return
        for key, value in params.items():
            tag = second_value_tag(key)
            if self.run.params.setdefault(key, value) != value or tag in self.run.tags:
                self.run.tags[tag] = value

    def log_metrics(self, metrics: Mapping[str, float], step: int) -> None:
        if self._ended:
            return
        now = now_ms()
        for key, number in metrics.items():
            value = float(number)
            if not is_repeat(key, repr(value), self._earlier.get((key, step), ())):
                self.run.metrics.append(MetricRow(key, value, step, now))

    def set_tags(self, tags: Mapping[str, str]) -> None:
        if not self._ended:
            known = self.run.tags
            known |= {tag: value for tag, value in tags.items() if not is_kept(tag, known)}

    def set_parent(self, job_id: str) -> None:
        if not self._ended:
            self.run.parent = job_id

    def log_artifact(self, name: str, data: bytes) -> None:
        if not self._ended:
            self.run.artifacts[name] = bytes(data)

    def log_image(self, key: str, data: bytes, step: int) -> None:
        if not self._ended:
            self.run.images[key, step] = bytes(data)

    def log_dataset(self, dataset: TrackedDataset) -> None:
        if not self._ended:
            self.run.datasets[dataset.use] = dataset

    def flush(self, timeout_s: float = 30.0) -> bool:  # the port's signature
        return True

    def finish(self, status: str) -> None:
        if not self._ended:
            self.run.status = status
        self._ended = True

    def close(self, timeout_s: float = 30.0) -> None:  # the port's signature
        self._ended = True


class NullTracker:
    """Implements ``Tracker`` for the ranks that do not log: no ``if rank == 0`` in a loop."""

    run_id = ""

    def log_params(self, params: Mapping[str, str]) -> None: ...

    def log_metrics(self, metrics: Mapping[str, float], step: int) -> None: ...

    def set_tags(self, tags: Mapping[str, str]) -> None: ...

    def set_parent(self, job_id: str) -> None: ...

    def log_artifact(self, name: str, data: bytes) -> None: ...

    def log_image(self, key: str, data: bytes, step: int) -> None: ...

    def log_dataset(self, dataset: TrackedDataset) -> None: ...

    def flush(self, timeout_s: float = 30.0) -> bool:  # the port's signature
        return True

    def finish(self, status: str) -> None: ...

    def close(self, timeout_s: float = 30.0) -> None: ...  # the port's signature
