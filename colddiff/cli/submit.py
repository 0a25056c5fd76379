"""`colddiff submit VERB`: one job to a cluster, or into this process, as often as one likes."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from colddiff.cli.options import Address, Json, Plugins, TrustedPlugins
from colddiff.cli.output import emit, emit_json, talk
from colddiff.stores.open import open_store

if TYPE_CHECKING:
    from colddiff.cluster.display import Display
    from colddiff.cluster.submit import Outcome
    from colddiff.jobs.job import Job
    from colddiff.jobs.recipes import Recipe
    from colddiff.jobs.resolve import ResolvedJob

app = typer.Typer(
    no_args_is_help=True,
    help="Hand a job in; done before it is done again, attached to where it runs, else begun.",
)

START = "start_from"

Words = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[JOB] [key=value ...]",
        help="A recipe's name or a YAML file, and fields to set (values are YAML).",
        show_default=False,
    ),
]


@dataclass(frozen=True, slots=True)
class Request:
    """A submit command as it was typed."""

    words: tuple[str, ...] = ()
    address: str | None = None
    name: str | None = None
    detach: bool = False
    dry_run: bool = False
    rate: str | None = None
    as_json: bool = False
    plugins: tuple[str, ...] = ()
    variant: str | None = None
    start: str | None = None
    new: bool = False
    local: bool = False
    shared_path: bool = False
    trusted: tuple[str, ...] = ()


VERBS = {
    "train": "Train a restorer.",
    "evaluate": "Measure a checkpoint on test images, or samples against a reference.",
    "generate": "Make images from a checkpoint, each exactly once, into tars on S3 or a path.",
}
"""What can be submitted, and its first line of help."""


def _command(verb: str) -> Callable[..., None]:
    """``submit VERB``: the options are the same for every verb, so they are written once."""

    def command(
        words: Words = None,
        address: Address = None,
        name: Annotated[
            str | None, typer.Option(help="Word in the job id; else the job's.")
        ] = None,
        detach: Annotated[bool, typer.Option("--detach", help="Do not follow the job.")] = False,
        dry_run: Annotated[
            bool, typer.Option("--dry-run", help="Print the job as YAML and contact nothing.")
        ] = False,
        rate: Annotated[
            str | None,
            typer.Option(
                metavar="RATE",
                help="With --dry-run: images/s (850) or 40TFLOP/s, for an estimate of the hours.",
            ),
        ] = None,
        as_json: Json = False,
        plugin: Plugins = None,
        trust_plugin: TrustedPlugins = None,
        variant: Annotated[str | None, typer.Option(help="A variant of the recipe.")] = None,
        start: Annotated[
            str | None,
            typer.Option("--from", metavar="CHECKPOINT", help="Start from these weights."),
        ] = None,
        new: Annotated[
            bool, typer.Option("--new", help="Another job, though an equal one may exist.")
        ] = False,
        local: Annotated[
            bool, typer.Option("--local", help="Run in this process, without a cluster.")
        ] = False,
        shared_path: Annotated[
            bool,
            typer.Option("--shared-path", help="All nodes of a remote cluster see the same paths."),
        ] = False,
    ) -> None:
        submit_verb(
            verb,
            Request(
                words=tuple(words or ()),
                address=address,
                name=name,
                detach=detach,
                dry_run=dry_run,
                rate=rate,
                as_json=as_json,
                plugins=tuple(plugin or ()),
                variant=variant,
                start=start,
                new=new,
                local=local,
                shared_path=shared_path,
                trusted=tuple(trust_plugin or ()),
            ),
        )

    return command


for _verb, _help in VERBS.items():
    app.command(_verb, help=f"{_help} Exit codes: 0 done, 1 failed, 4 stopped.")(_command(_verb))


def submit_verb(verb: str, request: Request) -> None:
    """Carries out ``colddiff submit VERB``; ends with the job's exit code."""
    from colddiff.jobs.job import slugify

    _refuse_contradictions(verb, request)
    recipe, job = read_job(verb, request)
    slug = slugify(request.name or recipe.name)
    if request.dry_run:
        _print_job(slug, job, request, recipe)
        return
    job = _with_trusted(_with_checkpoint(job, recipe), request)
    announced: list[str] = []

    def announce(job_id: str) -> None:
        announced.append(job_id)
        if not request.as_json:
            emit(job_id)

    run = _run_here if request.local else _run_on_cluster
    try:
        outcome = run(job, slug, request, announce)
    except Exception as error:
        if announced and request.as_json:
            emit_json({"id": announced[0], "exit_code": getattr(error, "exit_code", 1)})
        raise
    if request.as_json:
        emit_json(asdict(outcome))
    raise typer.Exit(outcome.exit_code)


def read_job(verb: str, request: Request) -> tuple[Recipe, Job]:
    """The recipe and the validated job that the words of a request mean; its plugins run.

    Raises SpecError naming the path that is wrong and the nearest name.
    """
    from colddiff.errors import SpecError
    from colddiff.jobs.recipes import Recipe, load_recipe
    from colddiff.jobs.verb import VERBS
    from colddiff.spec import apply_overrides

    named = [word for word in request.words if "=" not in word]
    overrides = [word for word in request.words if "=" in word]
    if len(named) > 1:
        raise SpecError(f"{named[1]!r} is neither the one JOB ({named[0]!r}) nor key=value")
    if named:
        recipe = load_recipe(named[0], request.variant)
    elif request.variant is not None:
        raise SpecError("--variant needs a JOB that has variants")
    else:
        recipe = Recipe(name="job", description="", sections={verb: {}})
    if request.start is not None:
        if START not in VERBS[verb].spec().model_fields:
            raise SpecError(f"--from: a {verb} job cannot start from a checkpoint")
        overrides.append(f"{START}={json.dumps(request.start)}")
    if request.plugins:
        written = apply_overrides(recipe.sections.get(verb) or {}, overrides).get("plugins") or []
        added = [str(Path(plugin).absolute()) for plugin in request.plugins]
        overrides.append(f"plugins={json.dumps([*written, *added])}")
    return recipe, recipe.job(verb, overrides)


def _with_checkpoint(job: Job, recipe: Recipe) -> Job:
    """The job with the checkpoint of the same file's train job, where it has none of its own."""
    if not _needs_training(job, recipe):
        return job
    from colddiff.jobs.job import slugify
    from colddiff.jobs.resolve import trained_id
    from colddiff.stores.open import storage_at

    place = storage_at(job.storage)
    return job.model_copy(
        update={"checkpoint": trained_id(recipe.train, slugify(recipe.name), place)}
    )


def _with_trusted(job: Job, request: Request) -> Job:
    """The job with the plugins of its checkpoint that the user says may run."""
    if not request.trusted:
        return job
    from colddiff.checkpoints.trusted_plugins import with_trusted
    from colddiff.cluster.home import Home
    from colddiff.stores.open import storage_at

    place = storage_at(job.storage)
    folder = Home.from_environment().path / "plugins"
    return with_trusted(job, request.trusted, folder, place)


def _needs_training(job: Job, recipe: Recipe) -> bool:
    fields = type(job).model_fields
    given = [name for name in ("checkpoint", "samples") if getattr(job, name, None) is not None]
    return "checkpoint" in fields and not given and "train" in recipe.sections


def _refuse_contradictions(verb: str, request: Request) -> None:
    from colddiff.errors import SpecError

    if request.local and (request.address is not None or request.detach):
        other = "--address" if request.address is not None else "--detach"
        raise SpecError(f"--local runs the job in this process: it cannot go with {other}")
    if request.rate is not None and not (request.dry_run and verb == "train"):
        raise SpecError("--rate is for an estimate: it goes with submit train --dry-run")


def _print_job(slug: str, job: Job, request: Request, recipe: Recipe) -> None:
    import yaml

    from colddiff.verbs.train.estimate import estimate
    from colddiff.verbs.train.job import TrainJob

    data: dict[str, Any] = {"name": slug, job.verb: job.to_dict()}
    if _needs_training(job, recipe):
        # Its id follows from the recipe's name and train section; both belong into the file then.
        data = {"name": recipe.name, "train": recipe.train.to_dict(), job.verb: job.to_dict()}
    if job.verb == "generate":
        talk(_grid(job))
    if isinstance(job, TrainJob):
        found = estimate(job, request.rate)
        for line in found.lines():
            talk(line)
        if request.as_json:
            data["estimate"] = found.to_dict()
    if request.as_json:
        emit_json(data)
    else:
        emit(yaml.safe_dump(data, sort_keys=False).rstrip())


def _grid(job: Any) -> str:
    """The plan of a generation job in a line."""
    place = job.out or "STORAGE/samples/<id>"
    if job.num_samples is None:
        return f"as many images as `data` holds, {job.shard_size} a shard, to {place}"
    shards, rest = divmod(job.num_samples, job.shard_size)
    batches = shards * -(-job.shard_size // job.batch_size) + -(-rest // job.batch_size)
    last = f", the last of {rest}" if rest and shards else ""
    return (
        f"{job.num_samples} images, shards of {job.shard_size}: {shards + bool(rest)}{last}, "
        f"batches of {job.batch_size} rows: {batches}, to {place}"
    )


def _run_on_cluster(
    job: Job, slug: str, request: Request, announce: Callable[[str], None]
) -> Outcome:
    from colddiff.cluster.display import Display
    from colddiff.cluster.home import Home
    from colddiff.cluster.operate import given_cluster, started_cluster
    from colddiff.cluster.ray_jobs import RayJobs
    from colddiff.cluster.submit import submit
    from colddiff.jobs.resolve import refuse_paths, resolve

    display, home = Display(sys.stderr), Home.from_environment()
    cluster = given_cluster(request.address, home)
    remote = cluster is not None and not cluster.local
    jobs = None
    if cluster is not None:
        if remote and not cluster.loopback and not request.shared_path:
            refuse_paths(job)
        # Before the data are packed for it, which can take long.
        jobs = RayJobs(cluster)
    resolved = resolve(
        job.verb,
        job,
        slug,
        remote=remote,
        shared_path=request.shared_path,
        new=request.new,
        talk=display.say,
    )
    # After all that can be wrong with the job: a cluster takes seconds to start and stays.
    jobs = jobs or RayJobs(started_cluster(home, display))
    try:
        return submit(resolved, jobs, display, detach=request.detach, announce=announce)
    finally:
        display.close()


def _run_here(job: Job, slug: str, request: Request, announce: Callable[[str], None]) -> Outcome:
    from colddiff.cluster.display import Display
    from colddiff.jobs.resolve import resolve

    resolved = resolve(job.verb, job, slug, new=request.new, talk=talk)
    display = Display(sys.stderr)
    try:
        return run_here(resolved, display, announce)
    finally:
        display.close()


def run_here(resolved: ResolvedJob, display: Display, announce: Callable[[str], None]) -> Outcome:
    """The next attempt at a job in this process; attached to where it runs already."""
    from colddiff.cluster.submit import (
        INTERRUPTED,
        already_done,
        begin,
        driver_is_gone,
        followed,
        is_done,
        newest_attempt,
        outcome_of,
    )
    from colddiff.jobs.folder import JobFolder
    from colddiff.jobs.local import run_local

    folder = JobFolder(open_store(resolved.storage), resolved.id)
    status = folder.status()
    announce(resolved.id)
    if status is not None and is_done(resolved, folder, status):
        return already_done(resolved, folder, status, display)
    if (
        status is not None
        and status.state == "running"
        and not driver_is_gone(folder, status.attempt, None)
    ):
        display.say(f"{resolved.id} runs already (attempt {status.attempt})")
        return followed(folder, status.attempt, None, display)
    attempt = newest_attempt(folder, status) + 1
    if not begin(folder, resolved, status, attempt, None):
        return followed(folder, attempt, None, display)
    try:
        code = run_local(resolved, attempt)
    except KeyboardInterrupt:
        message = "interrupted; submit the same job again to go on"
        if now := folder.status():
            folder.write_status(replace(now, state="stopped", message=message, phase=""))
        display.say(message)
        code = INTERRUPTED
    return replace(outcome_of(folder, folder.status()), exit_code=code)
