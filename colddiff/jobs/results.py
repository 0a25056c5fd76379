"""What a job tells whoever submits it: before it runs, and its numbers, pictures and next steps."""

from __future__ import annotations

import json
import logging
import shlex
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from colddiff.errors import ColddiffError
from colddiff.evaluation.best import standing_metric
from colddiff.jobs.listing.comparable import compare_step
from colddiff.jobs.status import verdict_line
from colddiff.jobs.verb import VERBS, Verb, unit_of
from colddiff.report.differences import value_text
from colddiff.stores.open import storage_at
from colddiff.tracking.address import opened_at
from colddiff.tracking.open import has_spooled_entries

if TYPE_CHECKING:
    from colddiff.jobs.folder import JobFolder
    from colddiff.jobs.resolve import ResolvedJob
    from colddiff.jobs.runner import Runner
    from colddiff.jobs.status import Status

SHOWN_PICTURES = 8
UNDELIVERED = (
    "  some tracking entries are not delivered yet, as the tracker was down: submit the job again "
    "once it is up to deliver them"
)
log = logging.getLogger(__name__)

_TOLD: ContextVar[bool] = ContextVar("colddiff_told", default=True)
_SAID: ContextVar[set[str] | None] = ContextVar("colddiff_said", default=None)
"""Warnings of the jobs that are resolved together, such as the trainings of a study."""
_HELD: ContextVar[list[str] | None] = ContextVar("colddiff_held", default=None)
_ADVISED: ContextVar[tuple[str, frozenset[str]]] = ContextVar(
    "colddiff_advised", default=("", frozenset())
)
"""The job that was submitted last, and what was said of it before it ran."""


def told_lines(folder: JobFolder, result: Mapping[str, Any]) -> list[str]:
    """``result_lines`` of a job in its STORAGE, where another one may be there to compare with.

    And numbers that its tracker lacks.
    """
    lines = result_lines(folder.job_id, result, compare_step(folder, result))
    with suppress(ColddiffError):
        if has_spooled_entries(folder.store, folder.job_id):
            lines.insert(lines.index("next:") if "next:" in lines else len(lines), UNDELIVERED)
    return lines


def result_lines(job_id: str, result: Mapping[str, Any], further: Sequence[str] = ()) -> list[str]:
    """The result of a finished job as text: its numbers, pictures, and commands to go on with.

    The numbers are those that its driver wrote into the result: a table may need the plugins of
    the job, which are not loaded here. ``further``: commands beside those that its verb knows.
    """
    verb = VERBS.get(job_id.partition("-")[0])
    lines = list(result.get("summary", ()))
    if verb and "summary" not in result:
        lines += _read(lambda: verb.summary(result))
    pictures = list(result.get("pictures", []))
    lines += ["pictures:"] * bool(pictures)
    lines += [f"  {address}" for address in pictures[:SHOWN_PICTURES]]
    if len(pictures) > SHOWN_PICTURES:
        lines.append(f"  ... and {len(pictures) - SHOWN_PICTURES} more beside them")
    if result.get("report"):
        lines.append(f"report: {result['report']}")
        if "://" in str(result["report"]):  # no browser opens it
            lines.append(f"  open it: colddiff report {job_id} --out DIR")
    tracked = result.get("tracking") or {}
    if tracked.get("uri"):
        run = f"run {tracked['run_id']}" if tracked.get("run_id") else "its run"
        lines.append(f"MLflow: {run} {opened_at(str(tracked['uri']))}")
    steps = _read(lambda: _next_steps(verb, job_id, result)) if verb else []
    steps = [*steps, *further]
    lines += ["next:"] * bool(steps)
    return lines + [f"  {step}" for step in steps]


def _next_steps(verb: Verb, job_id: str, result: Mapping[str, Any]) -> list[str]:
    """``Verb.next_steps`` as they are typed here: with `--local` for a job that ran without a
    cluster, and with the short name of a checkpoint where that is enough."""
    checkpoint = str(result.get("checkpoint") or "")
    if checkpoint.startswith(f"{storage_at()}/jobs/"):
        result = {**result, "checkpoint": value_text(checkpoint)}
    steps = verb.next_steps(job_id, result)
    return [_with_local(step) for step in steps] if result.get("local") else list(steps)


def _with_local(step: str) -> str:
    command, gap, comment = step.partition("    #")
    added = " --local" * command.startswith("colddiff submit ")
    return f"{command}{added}{gap}{comment}"


def _read(lines: Callable[[], Sequence[str]]) -> list[str]:
    """``lines()``, or what is missing in a result that another version wrote."""
    try:
        return list(lines())
    except KeyError as missing:
        return [f"(result.json has no {missing})"]


def log_verdict(folder: JobFolder, status: Status) -> None:
    """Logs how a job ended, and its result if it is done."""
    log.info("%s", verdict_line(folder.job_id, status, unit_of(folder.job_id)))
    if status.state == "done":
        job_id, advised = _ADVISED.get()
        log_result(folder, said=advised if job_id == folder.job_id else ())


def log_result(folder: JobFolder, *, said: Collection[str] = ()) -> None:
    """Logs the result of a finished job, but for lines just ``said``, unless within ``untold``."""
    if not _TOLD.get():
        return
    try:
        result = folder.result()
    except ColddiffError as error:
        log.warning("%s", error)
        return
    for line in told_lines(folder, result) if result else ():
        if line not in said:
            log.info("%s", line)


def is_told() -> bool:
    """Whether whoever submits a job is told about it by the log: not within ``untold``."""
    return _TOLD.get()


@contextmanager
def untold() -> Iterator[None]:
    """Within ``with``, results of jobs are not logged: somebody else presents them."""
    token = _TOLD.set(False)
    try:
        yield
    finally:
        _TOLD.reset(token)


def warn_submitter(line: str) -> None:
    """Warns whoever submits a job; once within ``each_line_once``, never within ``untold``.

    Within ``held_warnings`` later, if at all.
    """
    said = _SAID.get()
    if not is_told() or (said is not None and line in said):
        return
    if said is not None:
        said.add(line)
    held = _HELD.get()
    if held is None:
        log.warning("%s", line)
    else:
        held.append(line)


@contextmanager
def held_warnings() -> Iterator[list[str]]:
    """Within ``with``, warnings are collected: a job that turns out to be done needs none."""
    held: list[str] = []
    token = _HELD.set(held)
    try:
        yield held
    finally:
        _HELD.reset(token)


@contextmanager
def each_line_once() -> Iterator[None]:
    """Within ``with``, a warning that is true of several jobs is logged for the first alone."""
    token = _SAID.set(set())
    try:
        yield
    finally:
        _SAID.reset(token)


def score_of(result: Mapping[str, Any]) -> tuple[str, float] | None:
    """Path and value of the metric that stands for a job in a list; None without one.

    ``result`` holds ``metrics``, and where they are of images ``provenance``.
    """
    metrics = result.get("metrics", {})
    provenance = result.get("provenance") or {}
    misfits = [provenance["metric"]] if provenance.get("misfit") else []
    path = standing_metric(metrics, misfits=misfits)
    return None if path is None else (path, float(metrics[path]))


def advise(resolved: ResolvedJob, runner: Runner) -> None:
    """Logs what the verb has to say to whoever submits the job; no job fails for it."""
    if not is_told():
        return
    with suppress(ColddiffError):
        lines = VERBS[resolved.verb].advice(resolved.job, runner.capacity)
        for line in lines:
            log.warning("%s", line)
        _ADVISED.set((resolved.id, frozenset(lines)))


def tell_of_less(resolved: ResolvedJob, status: Status | None) -> None:
    """Logs a line if less is requested than the job has already done."""
    verb = VERBS[resolved.verb]
    wanted, done = verb.requested_extent(resolved.job), status.step if status else 0
    if verb.extent and 0 < wanted < done and is_told():
        log.warning(
            "%s=%d is less than the %d %s already done: a job is extended, and never shortened%s",
            *(verb.extent, wanted, done, verb.unit),
            f"; {verb.extent}={done} ends it there" if status and status.state != "done" else "",
        )


def tell_of_other_evaluation(resolved: ResolvedJob, folder: JobFolder) -> None:
    """Logs a line where a finished job, or a training of it, was evaluated otherwise than asked.

    How trainings are evaluated is not part of their ids: with other fields they are the same jobs.
    """
    if not is_told():
        return
    with suppress(ColddiffError):
        measured = _evaluations(resolved.id, folder.job().get("spec", {}))
        for job_id, asked in _evaluations(resolved.id, resolved.job.to_dict()).items():
            found = measured.get(job_id, asked)
            names = [name for name in asked if found[name] != asked[name]]
            if names:
                local = (folder.result() or {}).get("local", False)
                log.warning("%s", _other_evaluation(job_id, names, found, asked, bool(local)))
                return


def _evaluations(job_id: str, spec: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """How trainings are evaluated, by id: the job itself, or those of a study."""
    # Commands on submitted jobs need this module, and none of the jobs' classes.
    from colddiff.evaluation.spec import EvaluationSpec
    from colddiff.spec import parse

    trainings = {one["id"]: one["train"] for one in spec.get("trainings", ())} or {job_id: spec}
    found = {
        one: parse(EvaluationSpec, train["evaluation"]).to_dict()  # as this version has the fields
        for one, train in trainings.items()
        if train.get("test_data") and "evaluation" in train
    }
    for fields in found.values():
        fields["features"].pop("path", None)  # another on each machine
    return found


def _other_evaluation(
    job_id: str,
    names: Sequence[str],
    found: Mapping[str, Any],
    asked: Mapping[str, Any],
    local: bool,
) -> str:
    """The line on fields ``names``, whose values are ``found`` and were to be ``asked``."""
    from colddiff.evaluation.spec import carried_over

    def text(value: Any) -> str:
        if isinstance(value, dict) and "kind" in value:
            return str(value["kind"])
        return value if isinstance(value, str) else json.dumps(value, separators=(",", ":"))

    old = ", ".join(f"evaluation.{name}={text(found[name])}" for name in names)
    line = f"its numbers were measured with {old}, and are not measured again"
    own = carried_over({name: asked[name] for name in names})
    if not own:
        return f"{line}; --new trains again"
    fields = [f"{name}={text(value)}" for name, value in own.items()]
    words = ["colddiff", "submit", "evaluate", f"checkpoint={job_id}@best", *fields]
    return f"{line}; `{shlex.join([*words, *['--local'] * local])}` evaluates so"
