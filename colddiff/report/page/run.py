"""A job as its page sees it: facts read from STORAGE, without anything that runs."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from colddiff.evaluation.best import left_out, notes_of, shown_metrics, unfit_metric
from colddiff.report.page.details import Details

COMPARED_BY = (
    "metric",
    "feature_weights_sha256",
    "protocol",
    "reference_sha256",
    "samples_manifest",
    "n",
)
"""Entries of a provenance that must be equal for two distances to stand in one column."""
SHOWN_AS = {
    "metric": "features",
    "feature_weights_sha256": "weights of the features",
    "protocol": "protocol",
    "reference_sha256": "reference images",
    "samples_manifest": "samples",
    "n": "number of images",
}


@dataclass(frozen=True, slots=True)
class Measured:
    """One evaluation of a job: metrics by path and where they come from.

    ``best`` is ``evaluation.best`` of the job, which may ask for a distance that does not fit.
    """

    step: int
    metrics: Mapping[str, float]
    provenance: Mapping[str, Any]
    details: Details | None = None
    best: str | None = None

    @property
    def left_out(self) -> str | None:
        """The distance that is not shown unless it is chosen, if there is one."""
        return left_out(self.provenance, self.best)

    @property
    def unfit(self) -> str | None:
        """The distance that comes last and unmarked where it is shown, if there is one."""
        return unfit_metric(self.provenance)

    @property
    def notes(self) -> list[str]:
        """What stands below the distances; nothing where they are not shown."""
        return [] if self.left_out else notes_of(self.provenance)

    def shown(self, chosen: Collection[str] = ()) -> dict[str, float]:
        """The metrics that are shown: all but ``left_out``, unless it is among ``chosen``."""
        if self.left_out in chosen:
            return dict(self.metrics)
        return shown_metrics(self.metrics, self.provenance, self.best)

    @property
    def protocol(self) -> dict[str, Any]:
        """What must be equal for two evaluations to be compared."""
        return {
            name: self.provenance.get(name) for name in COMPARED_BY if name != "samples_manifest"
        }


@dataclass(frozen=True, slots=True)
class WorkerStart:
    """One start of an attempt's workers: when, from which step, how many, what they repeat."""

    time: float
    step: int | None
    workers: int | None
    repeated_steps: int = 0


@dataclass(frozen=True, slots=True)
class AttemptFacts:
    """An attempt at a job; times are seconds since 1970 on the clock of whoever wrote them."""

    number: int
    began: float | None
    starts: tuple[WorkerStart, ...] = ()
    outcome: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ReportPicture:
    """A picture of a job, as it lies in its folder."""

    name: str
    data: bytes


@dataclass(frozen=True, slots=True)
class ReportedRun:
    """A job and what it has left in STORAGE, at its state when it was read.

    ``job`` is its job.json, ``evaluations`` are in the order of their steps, ``sentences`` what
    its verb says about its result.
    """

    id: str
    verb: str
    uri: str
    job: Mapping[str, Any]
    state: str
    status: Mapping[str, Any] = field(default_factory=dict)
    evaluations: tuple[Measured, ...] = ()
    result: Mapping[str, Any] = field(default_factory=dict)
    attempts: tuple[AttemptFacts, ...] = ()
    pictures: tuple[ReportPicture, ...] = ()
    written: tuple[tuple[str, str], ...] = ()
    """Markdown files that its verb wrote, such as a leaderboard: (name, content)."""
    sentences: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()
    targets: Mapping[str, Any] = field(default_factory=dict)
    """Published numbers that its recipe aims at, by metric path, and their ``source``."""
    unlike: Mapping[str, tuple[Any, Any]] = field(default_factory=dict)
    """By path the fields in which its training is not the recipe's: its value and the recipe's."""
    command: str = ""
    """The command that submits an equal job."""
    step: int | None = None
    """Of the evaluation that was chosen; None: the latest one is shown."""

    @property
    def name(self) -> str:
        """Its id, with the step that was chosen."""
        return self.id if self.step is None else f"{self.id}@step={self.step}"

    @property
    def spec(self) -> Mapping[str, Any]:
        """The job's fields."""
        return dict(self.job.get("spec", {}))

    @property
    def last(self) -> Measured | None:
        """The evaluation that is shown: the chosen one, else that at the latest step."""
        if self.step is None:
            return self.evaluations[-1] if self.evaluations else None
        return next((one for one in self.evaluations if one.step == self.step), None)

    @property
    def checkpoint(self) -> str:
        """Address of the checkpoint that is shown; empty where the job names none."""
        if self.step is None:
            return str(self.result.get("checkpoint") or "")
        return f"{self.uri}/checkpoints/step_{self.step:08d}"
