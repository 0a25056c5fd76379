"""The journal of a search: one record per trial, written once; how a trial stands is derived.

A record says what was asked. What came of it is in the folder of the trial's own training job, so
that the two cannot disagree, and a search that was killed reads on where it was.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar, Protocol, TypeVar, overload

from pydantic import TypeAdapter, ValidationError

from colddiff.errors import ColddiffError, Exists
from colddiff.jobs.folder import JobFolder
from colddiff.ports import Store


@dataclass(frozen=True, slots=True)
class Trial:
    """What was asked: a point of the space, as a training job. Never changed once written."""

    number: int
    """0 is the base."""
    seed: int
    point: dict[str, Any]
    """Value by path, JSON."""
    scale: float | None
    """Factor on the schedule that makes its end equal to the base's; None where none is applied."""
    end_rmse: float | None
    """RMSE of D(x, T) against x, on the scale [0, 1]."""
    job: dict[str, Any]
    """The training job, resolved."""
    job_id: str
    known: int
    """How many results the suggestion saw."""
    redrawn: int = 0
    """Points drawn before this one whose end cannot be compared with the base's."""
    information: float | None = None
    """Part of the variance of x that D(x, T) still holds, 0..1; None where that is not asked."""


class TrialRecord(Protocol):
    """A record of the journal: a dataclass with the number that it is kept under."""

    __dataclass_fields__: ClassVar[dict[str, Any]]

    @property
    def number(self) -> int: ...


R = TypeVar("R", bound=TrialRecord)


@dataclass(frozen=True, slots=True)
class TrialState:
    """How a trial stands, as its training job's folder says."""

    trial: Trial
    values: dict[int, float]
    """The metric that trials are ranked by, at each rung (optimizer step) reached."""
    steps: int = 0
    """Optimizer steps trained."""
    failed: str | None = None
    """Why it cannot go on."""
    metrics: dict[str, float] = field(default_factory=dict)
    """All metrics at the highest rung reached."""

    @property
    def last(self) -> int | None:
        """The highest rung reached."""
        return max(self.values, default=None)

    def done(self, rungs: Sequence[int]) -> bool:
        """Whether it was evaluated at the last rung."""
        return rungs[-1] in self.values

    def describe(self, rungs: Sequence[int], *, finished: bool = False) -> str:
        """``asked``, ``at step 60``, ``done``, ``failed``; ``passed over`` once all is finished."""
        if self.done(rungs):
            return "done"
        if self.failed is not None:
            return "failed"
        if finished and self.values:
            return "passed over"
        return "asked" if self.last is None else f"at step {self.last}"


def trial_key(folder: JobFolder, number: int) -> str:
    """Key of a trial's record in the folder of its search."""
    return folder.key("trials", f"{number:04d}.json")


def write_trial(folder: JobFolder, trial: TrialRecord) -> bool:
    """Writes the record of a trial; False, and no change, where its number is taken."""
    data = json.dumps(asdict(trial), indent=2, sort_keys=True) + "\n"
    try:
        folder.store.put_new(trial_key(folder, trial.number), data.encode())
    except Exists:
        return False
    return True


@overload
def read_trials(folder: JobFolder) -> list[Trial]: ...
@overload
def read_trials(folder: JobFolder, kind: type[R]) -> list[R]: ...
def read_trials(folder: JobFolder, kind: Any = Trial) -> list[Any]:
    """All trials of a search, by number; ColddiffError where a record is damaged or missing."""
    prefix = folder.key("trials/")
    trials, record = [], TypeAdapter(kind)
    for number, key in enumerate(sorted(item.key for item in folder.store.list(prefix))):
        if key != trial_key(folder, number):
            missing = f"{folder.store.uri}/{trial_key(folder, number)}"
            raise ColddiffError(f"{missing} is missing, but {key.removeprefix(prefix)} is there")
        trials.append(_read_trial(folder, number, record))
    return trials


def states(
    store: Store,
    trials: Iterable[Trial],
    rungs: Sequence[int],
    metric: str,
    *,
    before: Sequence[TrialState] = (),
) -> list[TrialState]:
    """How ``trials`` stand now; those that were done ``before`` are not read again."""
    done = {state.trial.job_id: state for state in before if state.done(rungs)}
    return [done.get(trial.job_id) or _state(store, trial, rungs, metric) for trial in trials]


def _read_trial(folder: JobFolder, number: int, record: TypeAdapter[Any]) -> Any:
    key = trial_key(folder, number)
    try:
        trial = record.validate_json(folder.store.get(key))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        problem = f"{where}: {first['msg']}" if where else first["msg"]
    else:
        if trial.number == number:
            return trial
        problem = f"it is of trial {trial.number}"
    raise ColddiffError(
        f"{folder.store.uri}/{key} is not the record of trial {number} ({problem}); restore it, "
        f"or delete {folder.uri} to begin the search again (its training jobs are kept)"
    )


def _state(store: Store, trial: Trial, rungs: Sequence[int], metric: str) -> TrialState:
    folder = JobFolder(store, trial.job_id)
    status = folder.status()
    failed = None
    if status is not None and status.state == "failed":
        failed = status.message or "its training job failed"
    values: dict[int, float] = {}
    metrics: dict[str, float] = {}
    for rung in rungs:
        evaluation = folder.evaluation(rung)
        if evaluation is None:
            continue
        found = evaluation.get("metrics", {})
        value = found.get(metric)
        if value is None or not math.isfinite(value):
            problem = "is missing" if value is None else f"is {value}"
            failed = failed or f"{metric} {problem} in the evaluation at step {rung}"
            continue
        values[rung], metrics = float(value), found
    if rungs[-1] in values:
        failed = None  # whatever failed afterwards, the result is there
    trained = status.step if status is not None else 0
    return TrialState(trial, values, max(trained, *values, 0), failed, metrics)
