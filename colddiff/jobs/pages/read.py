"""A job's folder read as its report page sees it."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from functools import partial
from typing import Any

import yaml

from colddiff.errors import ColddiffError, DataError, Missing, RecordError
from colddiff.evaluation.trajectory import evenly
from colddiff.jobs.folder import JobFolder
from colddiff.jobs.pages.targets import targets_of
from colddiff.jobs.verb import VERBS
from colddiff.report.page.details import Details, details_from_bytes
from colddiff.report.page.run import AttemptFacts, Measured, ReportedRun, ReportPicture, WorkerStart
from colddiff.spec import parse

MOST_STEPS = 8
"""Evaluations whose images are read, beside the last one's: for the way over training."""
MOST_PICTURES = 40


def read_run(
    folder: JobFolder, result: Mapping[str, Any] | None = None, step: int | None = None
) -> ReportedRun:
    """The job in ``folder`` at the state it has now; asks nothing but its store.

    ``result``: with which the job is about to be done, if it is not written yet. ``step``: of the
    evaluation that is shown, by default the latest. A damaged result is named in ``problems`` and
    the rest is read. Raises Missing if there is no such job,
    RecordError if its job.json or status.json is damaged.
    """
    job = folder.job()
    if not job.get("verb"):
        raise RecordError(f"{folder.uri.rstrip('/')}/job.json is damaged: it says no verb")
    status = folder.status()
    problems: list[str] = []
    state = "done" if result is not None else status.word if status else "queued"
    result = _read(lambda: folder.result() or {}, problems) if result is None else result
    evaluations = _evaluations(folder, result, problems, _best_of(job), step)
    targets, unlike = targets_of(folder, job)
    run = ReportedRun(
        id=folder.job_id,
        verb=str(job["verb"]),
        uri=folder.uri.rstrip("/"),
        job=job,
        state=state,
        status=asdict(status) if status else {},
        evaluations=tuple(evaluations),
        result=result,
        attempts=tuple(_attempt(folder, number, problems) for number in folder.attempts()),
        written=tuple(_written(folder)),
        sentences=_sentences(result),
        problems=tuple(problems),
        targets=targets,
        unlike=unlike,
        command=command_of(job),
        step=step,
    )
    if run.last is not None and run.last.details is not None:
        return run
    return replace(run, pictures=tuple(_pictures(folder, step)))


def command_of(job: Mapping[str, Any]) -> str:
    """The command that submits an equal job: the fields that differ from their defaults.

    Every field is written out where a kind is not known here, such as a plugin's.
    """
    spec = dict(job.get("spec") or {})
    verb = VERBS.get(str(job["verb"]))
    if verb is not None:
        try:
            parsed = parse(verb.spec(), spec)
            # Whole fields: within one, its kind may be the default and must be named all the same.
            set_here, whole = parsed.model_dump(exclude_defaults=True), parsed.to_dict()
            spec = {name: whole[name] for name in set_here}
        except ColddiffError:
            spec = {name: value for name, value in spec.items() if value is not None}
    if (spec.get("tracking") or {}).get("parent"):
        del spec["tracking"]  # it says that a search or a study ran the job, not what it is
    words = [
        f"{name}={_flow(value)}" for name, value in spec.items() if value not in (None, {}, [])
    ]
    line = ["colddiff", "submit", str(job["verb"]), "--name", str(job.get("slug", "job"))]
    return shlex.join([*line, *words])


def _flow(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str | int | float):
        return str(value)
    return yaml.safe_dump(value, default_flow_style=True, width=10**9, sort_keys=False).strip()


def _evaluations(
    folder: JobFolder,
    result: Mapping[str, Any],
    problems: list[str],
    best: str | None,
    shown: int | None,
) -> list[Measured]:
    steps = folder.evaluated_steps()
    detailed = {*evenly(steps, MOST_STEPS + 1), shown}
    found = []
    for step in steps:
        try:
            record = folder.evaluation(step) or {}
            details = _details(folder, step) if step in detailed else None
        except ColddiffError as error:
            problems.append(str(error))
            continue
        found.append(_measured(step, record, details, best))
    if not found and result.get("metrics"):
        step = int(result.get("step") or 0)
        details = None
        try:
            details = _details(folder, step)
        except ColddiffError as error:
            problems.append(str(error))
        found.append(_measured(step, result, details, best))
    return found


def _best_of(job: Mapping[str, Any]) -> str | None:
    evaluation = dict(job.get("spec") or {}).get("evaluation")
    best = evaluation.get("best") if isinstance(evaluation, Mapping) else None
    return best if isinstance(best, str) else None


def _measured(
    step: int, record: Mapping[str, Any], details: Details | None, best: str | None
) -> Measured:
    metrics = {
        name: float(value)
        for name, value in (record.get("metrics") or {}).items()
        if isinstance(value, int | float)
    }
    return Measured(step, metrics, record.get("provenance") or {}, details, best)


def _details(folder: JobFolder, step: int) -> Details | None:
    data = folder.details(step)
    if data is None:
        return None
    try:
        return details_from_bytes(data)
    except DataError as error:
        raise DataError(f"the images of step {step} of {folder.job_id}: {error}") from None


def _attempt(folder: JobFolder, number: int, problems: list[str]) -> AttemptFacts:
    claim = _read(lambda: folder.read_claim(number), problems)
    outcome = _read(lambda: folder.outcome(number) or {}, problems)
    starts = []
    for token in folder.fencing_tokens(number):
        record = _read(partial(folder.fence, number, token), problems)
        if not record:
            continue
        starts.append(
            WorkerStart(
                float(record.get("time") or 0.0),
                record.get("step"),
                record.get("world_size"),
                int(record.get("repeated_steps") or 0),
            )
        )
    return AttemptFacts(number, claim.get("time"), tuple(starts), outcome)


def _read(record: Callable[[], dict[str, Any]], problems: list[str]) -> dict[str, Any]:
    """``record()``; empty, and named among the problems, where it is damaged."""
    try:
        return record()
    except ColddiffError as error:
        problems.append(str(error))
        return {}


def _pictures(folder: JobFolder, step: int | None) -> list[ReportPicture]:
    """The pictures in its folder, of a chosen step those of that step alone."""
    store, prefix = folder.store, folder.key("pictures/")
    within = prefix if step is None else f"{prefix}step_{step:08d}/"
    keys = [item.key for item in store.list(within) if item.key.endswith(".png")]
    found = []
    for key in keys[:MOST_PICTURES]:
        try:
            found.append(ReportPicture(key.removeprefix(prefix), store.get(key)))
        except Missing:
            continue  # replaced or deleted while it was listed
    return found


def _written(folder: JobFolder) -> list[tuple[str, str]]:
    """The Markdown files beside job.json, by name."""
    prefix = folder.key().rstrip("/") + "/"
    names = (item.key.removeprefix(prefix) for item in folder.store.list(prefix))
    return [
        (name, folder.store.get(prefix + name).decode(errors="replace"))
        for name in names
        if name.endswith(".md") and "/" not in name
    ]


def _sentences(result: Mapping[str, Any]) -> tuple[str, ...]:
    """What the verb says about its result, without tables and addresses."""
    lines = [str(line) for line in result.get("summary") or ()]
    return tuple(line for line in lines if line and "   " not in line and "://" not in line)
