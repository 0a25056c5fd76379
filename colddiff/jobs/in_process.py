"""Jobs driven by this process: `--local`, ``colddiff.train``, and trials of a search."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any, Protocol, TypeVar

from colddiff.errors import ColddiffError, SpecError, Stopped
from colddiff.jobs.attempt import Attempt
from colddiff.jobs.device import idle_gpu_line
from colddiff.jobs.driver import Within, drive, no_context
from colddiff.jobs.folder import JobFolder
from colddiff.jobs.job import Job
from colddiff.jobs.listing.ids import NAMELESS
from colddiff.jobs.logs import logged
from colddiff.jobs.resolve import ResolvedJob, resolve
from colddiff.jobs.runner import DriverState
from colddiff.jobs.status import INTERRUPTED
from colddiff.jobs.submit import bring_to_end
from colddiff.jobs.verb import VERBS
from colddiff.machine.processes import this_claimant
from colddiff.spec import parse
from colddiff.spec.documents import shown

log = logging.getLogger(__name__)
J = TypeVar("J", bound=Job, contravariant=True)


class Run(Protocol[J]):
    """The type of ``colddiff.train`` and the other verbs' functions."""

    def __call__(self, job: J | Mapping[str, Any], name: str = NAMELESS) -> dict[str, Any]: ...


class InProcess:
    """``Runner`` of the calling process: breakpoints work, and an interrupt ends the attempt.

    Args:
        on_ray: whether the job's workers are Ray's, in a process that is connected to a cluster.
            Without it, the work is done here, whatever number of workers the job asks for.
        gpus: of all those workers together.
        user: who submitted the job that runs this one; by default who runs this process.
        within: the context that an attempt's work is done in.
    """

    outlives_client = False
    where = "this process"
    _user = ""

    def __init__(
        self,
        *,
        on_ray: bool = False,
        gpus: float | None = None,
        user: str = "",
        within: Within = no_context,
    ) -> None:
        self._on_ray, self._gpus, self._user, self._within = on_ray, gpus, user, within

    def claim(self) -> dict[str, Any]:
        claimant = this_claimant()
        return {**claimant, "user": self._user or claimant["user"]}

    def owns(self, claim: Mapping[str, Any]) -> bool:
        return "address" not in claim

    def start(self, resolved: ResolvedJob, attempt: int, accepted: Callable[[], None]) -> None:
        accepted()
        run_here(resolved, attempt, on_ray=self._on_ray, gpus=self._gpus, within=self._within)

    def find(self, folder: JobFolder, attempt: int) -> DriverState | None:
        return None  # liveness comes from the heartbeat and its machine's process table

    def stop(self, folder: JobFolder, attempt: int) -> None:
        return

    def log(self, folder: JobFolder, attempt: int) -> str:
        return ""

    def is_down(self) -> bool:
        return False

    def capacity(self) -> None:
        return None


def run_here(
    resolved: ResolvedJob,
    attempt: int,
    *,
    on_ray: bool = False,
    gpus: float | None = None,
    within: Within = no_context,
) -> int:
    """Runs one attempt at a job, driven by this process; returns its exit code.

    ``gpus``: of all its workers; by default of the one that is this process. ``within``: the
    context that its work is done in.
    """
    if gpus is None:
        resources = getattr(resolved.job, "resources", None)
        gpus = resources.num_gpus if resources is not None else 0.0
    folder = resolved.folder
    with logged(lambda text: folder.write_log(attempt, text)) as flush:
        if not on_ray:
            if idle := idle_gpu_line(gpus):
                log.warning("%s", idle)
            # GPU hours are those of GPUs that are held.
            gpus = 0.0 if idle else gpus
        begun = Attempt(resolved, attempt, gpus=gpus)
        return drive(begun, on_ray=on_ray, turn=within, flush=flush)


DESCRIBED = """\
{help}

Runs the job in this process and returns its result, the content of ``result.json``::

    job = colddiff.load_recipe(RECIPE).job("{verb}")
    result = colddiff.{verb}(job)

The protocol is that of `colddiff submit {verb}`: the same call again resumes an interrupted job, a
larger extent (``num_steps``, ``num_samples``) extends a finished one, and a job that is done is not
run again: its result is returned. Fields are checked before anything is started.

Args:
    job: a {spec}, or its fields as a mapping.
    name: name used in the job's id, as `--name`; a recipe's ``name`` makes it the job that
        `colddiff submit {verb}` makes of the recipe.

Raises:
    SpecError: a job of another verb, or invalid fields.
    Stopped: the job was stopped, or reached a limit.
    ColddiffError: it failed; the message gives the reason.
"""


def run(verb: str, job: Job | Mapping[str, Any], name: str = NAMELESS) -> dict[str, Any]:
    """Runs a job of a verb; ``colddiff.train(job)`` is ``run("train", job)``.

    What it does is in ``DESCRIBED``, which is the description of each of these functions. Fields
    are checked before anything is started:

    >>> run("train", {"data": "digits", "num_steps": 0})
    Traceback (most recent call last):
    colddiff.errors.SpecError: train.num_steps: input should be greater than or equal to 1, got 0
    """
    spec = VERBS[verb].spec()
    if not isinstance(name, str):
        raise SpecError([("name", f"must be text, got {shown(name)}")])
    if isinstance(job, Mapping):
        job = parse(spec, job, verb)
    if not isinstance(job, spec):
        raise SpecError(f"colddiff.{verb} takes a {spec.__name__}, got {type(job).__name__}")
    resolved = resolve(job, name)
    ended = bring_to_end(resolved, InProcess())
    if ended.exit_code == INTERRUPTED:
        raise KeyboardInterrupt
    result = resolved.folder.result()
    if ended.exit_code == Stopped.exit_code:
        raise Stopped(ended.message)
    if ended.exit_code != 0 or result is None:
        raise ColddiffError(
            ended.message or f"{ended.id} has no result.json, its state: {ended.state}"
        )
    return result


def function_of(verb: str) -> Run[Job]:
    """The function ``colddiff.<verb>``: ``run`` for one verb."""

    def function(job: Job | Mapping[str, Any], name: str = NAMELESS) -> dict[str, Any]:
        return run(verb, job, name)

    function.__name__ = function.__qualname__ = verb
    function.__module__ = "colddiff"
    spec = VERBS[verb].spec().__name__
    function.__doc__ = DESCRIBED.format(verb=verb, spec=spec, help=VERBS[verb].help)
    return function
