"""Jobs and their results as flat rows, such as ``pandas.DataFrame(colddiff.list_jobs())``."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from colddiff.cluster.listing import current_rows
from colddiff.cluster.operate import find_job
from colddiff.errors import Missing, RecordError, SpecError
from colddiff.evaluation.best import REAL
from colddiff.jobs.folder import JobFolder
from colddiff.jobs.job import Job
from colddiff.jobs.listing.job_table import chosen, in_order
from colddiff.jobs.pages.find import reported
from colddiff.jobs.pages.read import read_run
from colddiff.jobs.resolve import identified
from colddiff.machine.files import is_folder
from colddiff.report.page.run import Measured
from colddiff.report.tables import FLOOR
from colddiff.samplers import column_labels
from colddiff.spec.documents import DocumentError, read_json_object, shown
from colddiff.stores.open import absolute, open_store, storage_at

Row = dict[str, Any]


def list_jobs(storage: str | None = None, *, name: str | None = None) -> list[Row]:
    """The jobs of a storage, newest last, as flat rows.

    Each has ``id``, ``verb``, ``name``, ``state``, ``step`` of ``num_steps``, the best value
    (``score``) of the ``metric`` that stands for it, ``created`` and ``seen`` (UTC, or None), and
    by dotted path the fields in which jobs of its name differ::

        pandas.DataFrame(colddiff.list_jobs(name="deblur-*")).sort_values("score")

    Args:
        storage: a path or ``s3://bucket/prefix``; default: COLDDIFF_STORAGE, else ./runs.
        name: only jobs whose name or id has this, or fits this pattern.

    A job with a damaged file is left out, with a warning. Raises StoreError if the storage cannot
    be reached.
    """
    if not isinstance(name, str | None):
        raise SpecError([("name", f"must be text, got {shown(name)}")])
    rows, problems = current_rows(open_store(storage_at(storage)), None)
    for problem in problems:
        warnings.warn(problem, stacklevel=2)
    found = []
    for row in in_order(chosen(rows, (), name), "seen"):
        status = row.status
        metric, score = row.score or (None, None)
        found.append(
            {
                "id": row.folder.job_id,
                "verb": row.verb,
                "name": row.name,
                "state": row.state,
                "step": status.step if status else 0,
                "num_steps": status.num_steps if status else 0,
                "metric": metric,
                "score": score,
                "created": _time(row.job.get("created")),
                "seen": _time(status.heartbeat if status else None),
                **row.differs,
            }
        )
    return found


@dataclass(frozen=True, slots=True)
class JobResult:
    """What a job has left: its result if it is done, and its evaluations so far as flat rows."""

    id: str
    state: str
    """``done``, ``running``, ``failed``, ...; as its folder says."""
    uri: str
    rows: list[Row] = field(repr=False)
    """For each evaluation and each of its columns: ``job``, ``step``, ``column`` (``degraded``,
    ``direct``, ``naive``, ``sampled``, ...), ``label``, and its metrics by name; of a search, for
    each trial: what its leaderboard has, the fields of its point by dotted path."""
    result: Mapping[str, Any] = field(repr=False)
    """The content of ``result.json``; empty before the job is done."""
    problems: tuple[str, ...] = ()
    """What could not be read, such as a damaged evaluation."""

    @property
    def metrics(self) -> Mapping[str, float]:
        """The final metrics by path, such as ``eval/sampled/rmse``."""
        found: Mapping[str, float] = self.result.get("metrics", {})
        return found

    @property
    def checkpoint(self) -> str | None:
        """Address of the checkpoint that a train job ended with; for ``load_checkpoint``."""
        return self.result.get("checkpoint")


def load_result(
    job: str | Job | Mapping[str, Any], storage: str | None = None, *, name: str = "job"
) -> JobResult:
    """What a job has left in its storage, at any time; rows are ready for a DataFrame.

    ::

        result = colddiff.load_result(colddiff.train(recipe.train, name=recipe.name))
        pandas.DataFrame(result.rows).pivot(index="step", columns="label", values="rmse")

    Args:
        job: the id of a job, its folder or URI, what ``colddiff.train`` and the like returned, or
            a job as it was given to them, together with its ``name``. A study has the rows of its
            trainings.
        storage: a path or ``s3://bucket/prefix``; default: COLDDIFF_STORAGE, else ./runs.

    Raises:
        Missing: no such job in the storage, with the nearest id.
        SpecError: something else than a job.
    """
    folder = _folder_of(job, storage, name)
    run = read_run(folder)
    members = [run if one.uri == folder.uri else read_run(one) for one in reported(folder)]
    rows = [
        {"job": member.id, "step": measured.step, **row}
        for member in members
        for measured in member.evaluations
        for row in _columns(measured)
    ]
    rows += [{"job": run.id, **row} for row in _trials(folder)]
    problems = tuple(dict.fromkeys(said for one in (run, *members) for said in one.problems))
    return JobResult(run.id, run.state, run.uri, rows, run.result, problems)


def _folder_of(job: str | Job | Mapping[str, Any], storage: str | None, name: str) -> JobFolder:
    if isinstance(job, Job):
        place = storage_at(storage or job.storage)
        _, _, job_id = identified(job, name, place)
        return find_job(job_id, place)
    if isinstance(job, Mapping):
        job = job.get("id", "")
    if not isinstance(job, str) or not job:
        raise SpecError(f"load_result takes a job's id, folder, result or spec, got {shown(job)}")
    if "/" not in job and not is_folder(job):
        return find_job(job, storage)
    root, _, job_id = absolute(job).rstrip("/").rpartition("/jobs/")
    if not root:
        raise SpecError(f"{job} is not the folder of a job: STORAGE/jobs/ID")
    return find_job(job_id, root)


def _columns(measured: Measured) -> list[Row]:
    """The metrics ``eval/<column>/<name>`` of an evaluation, a row for each column."""
    found: dict[str, Row] = {}
    for path, value in measured.metrics.items():
        column, _, metric = path.removeprefix("eval/").rpartition("/")
        found.setdefault(column, {})[metric] = value
    labels = column_labels(found) | {FLOOR: REAL}
    return [
        {"column": column, "label": labels.get(column, column), **row}
        for column, row in found.items()
    ]


def _trials(folder: JobFolder) -> list[Row]:
    """The rows of the leaderboard that a search leaves; none of other jobs."""
    key = folder.key("leaderboard.json")
    try:
        board = read_json_object(folder.store.get(key))
    except Missing:
        return []
    except DocumentError as error:
        raise RecordError(f"{folder.store.uri}/{key} {error}") from None
    rows = board.get("rows")
    return [_flat(row) for row in rows if isinstance(row, dict)] if isinstance(rows, list) else []


def _flat(row: Mapping[str, Any], above: str = "") -> Row:
    """``row`` without nesting; a trial's point is named by its fields' paths alone."""
    found: Row = {}
    for name, value in row.items():
        path = f"{above}.{name}" if above else name
        if isinstance(value, Mapping):
            found |= _flat(value, "" if path == "point" else path)
        else:
            found[path] = ", ".join(map(str, value)) if isinstance(value, list) else value
    return found


def _time(seconds: float | None) -> datetime | None:
    return datetime.fromtimestamp(seconds, UTC) if seconds else None
