"""`colddiff submit VERB`: idempotent submit of a job, to a cluster or in this process."""

from __future__ import annotations

import json
import re
import shlex
import sys
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from colddiff.cli.live_line import live_line
from colddiff.cli.options import Address, Json, Plugins, TrustedPlugins, VerbCommand
from colddiff.cli.output import emit, emit_json, note
from colddiff.jobs.listing.ids import HASH, slugify
from colddiff.jobs.verb import VERBS

if TYPE_CHECKING:
    from colddiff.errors import SpecError
    from colddiff.jobs.job import Job
    from colddiff.jobs.recipes import Recipe
    from colddiff.jobs.resolve import ResolvedJob
    from colddiff.jobs.runner import Runner


class VerbGroup(TyperGroup):
    """The verbs; a JOB or key=value in their place is answered with the command to write."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """The verb and what follows it; SpecError where the first word is none."""
        if args and args[0] not in self.commands:
            raise _no_verb(args)
        return super().resolve_command(ctx, args)


app = typer.Typer(
    cls=VerbGroup,
    no_args_is_help=True,
    help="Submit a job. If it already finished, report that; if it is running, attach to it; "
    "otherwise start or resume it.",
)

START = "start_from"
NOT_SUBMITTED = (
    "nothing was submitted; the job, if it runs already, continues: `colddiff list` shows it, "
    "`colddiff logs ID -f` follows it, `colddiff stop ID` ends it"
)
NOT_BEGUN = "nothing runs: the same command begins again, and keeps what was packed or split so far"
STEP = re.compile(r"[^=]+@step=\d+")
MADE = re.compile(rf"(?:^|/)({'|'.join(VERBS)})-[^/@]+-{HASH}(?:$|[/@])")
"""What names a job, or something that it made."""
ALIKE = 0.8
"""Likeness of a key to the name of an option that it is taken for."""

Words = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[JOB] [key=value ...]",
        help="Name of a recipe or path of a YAML file, and fields to set (values are YAML).",
        show_default=False,
    ),
]

DryRun = Annotated[
    bool,
    typer.Option(
        "--dry-run",
        help="Print the job as a file that `submit` takes, what it will take, and whether a "
        "checkpoint and data on this machine fit; contact nothing, but a cluster that is named, to "
        "say whether the job can ever fit. Exits with 0 for a job that could be submitted "
        "elsewhere: why submitting it here would fail, or wait for ever, is said last, and with "
        "--json in `problems`.",
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


def _command(verb: str) -> Callable[..., None]:
    """``submit VERB``: the options are the same for every verb, so they are written once."""

    def command(
        words: Words = None,
        address: Address = None,
        name: Annotated[
            str | None, typer.Option(help="Name used in the job id; default: the job's name.")
        ] = None,
        detach: Annotated[bool, typer.Option("--detach", help="Do not follow the job.")] = False,
        dry_run: DryRun = False,
        rate: Annotated[
            str | None,
            typer.Option(
                metavar="RATE",
                help="With --dry-run: images/s (850) or 40TFLOP/s, to estimate the hours; auto "
                "measures on this machine, for 20 s at most.",
            ),
        ] = None,
        as_json: Json = False,
        plugin: Plugins = None,
        trust_plugin: TrustedPlugins = None,
        variant: Annotated[str | None, typer.Option(help="Variant of the recipe.")] = None,
        start: Annotated[
            str | None,
            typer.Option("--from", metavar="CHECKPOINT", help="Start from these weights."),
        ] = None,
        new: Annotated[
            bool, typer.Option("--new", help="Submit a new job even if an equal one exists.")
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


for _verb in VERBS.values():
    _help = f"{_verb.help} Exit codes: 0 done, 1 failed, 4 stopped."
    app.command(_verb.name, cls=VerbCommand, help=_help)(_command(_verb.name))
for _folder, _reason in VERBS.broken.items():
    app.command(_folder, help=_reason)(_command(_folder))  # reports the reason


def submit_verb(verb: str, request: Request) -> None:
    """Runs ``colddiff submit VERB``; exits with the job's exit code."""
    from colddiff.jobs.recipes import submitted_from

    _refuse_contradictions(request)
    recipe, job = read_job(verb, request)
    with submitted_from(recipe):
        _submit(recipe, job, request)


def _submit(recipe: Recipe, job: Job, request: Request) -> None:
    from colddiff.jobs.results import untold
    from colddiff.jobs.submit import bring_to_end, report_if_done

    slug = slugify(request.name or recipe.name)
    if request.dry_run:
        from colddiff.cli.dry_run import print_job

        own = recipe if _needs_training(job, recipe) else None
        print_job(slug, job, request, own, lambda: completed_job(job, recipe, request))
        return
    job = completed_job(job, recipe, request)
    announced: list[str] = []

    def announce(job_id: str) -> None:
        announced.append(job_id)
        if not request.as_json:
            emit(job_id)

    with live_line(sys.stderr) as display, untold() if request.as_json else nullcontext():
        try:
            find_runner, resolved = _resolved(job, slug, request)
            # A cluster is started last: it takes seconds, and keeps running.
            submission = report_if_done(resolved, announce) or bring_to_end(
                resolved,
                find_runner(),
                show=display.show,
                detach=request.detach,
                announce=announce,
            )
        except KeyboardInterrupt:
            if not announced:
                note(NOT_BEGUN if request.local else NOT_SUBMITTED)
            raise
        except Exception as error:
            if announced and request.as_json:
                emit_json({"id": announced[0], "exit_code": getattr(error, "exit_code", 1)})
            raise
    if request.as_json:
        emit_json(asdict(submission))
    raise typer.Exit(submission.exit_code)


def read_job(verb: str, request: Request) -> tuple[Recipe, Job]:
    """The recipe and the validated job of a request; loads its plugins.

    Raises SpecError naming the invalid path and the nearest name.
    """
    from colddiff.errors import SpecError
    from colddiff.jobs.recipes import Recipe, load_recipe
    from colddiff.spec import apply_overrides

    named, overrides = _job_and_overrides(verb, request.words)
    _refuse_address(verb, overrides)
    if named:
        _refuse_made(verb, named[0], overrides)
        recipe = load_recipe(named[0], request.variant)
    elif request.variant is not None:
        raise SpecError("--variant needs a JOB that has variants")
    else:
        recipe = Recipe(name="job", description="", sections={verb: {}})
    if request.start is not None:
        if START not in VERBS[verb].spec().model_fields:
            raise SpecError(f"submit {verb} takes no --from: only a training starts from one")
        overrides.append(f"{START}={json.dumps(request.start)}")
    if request.plugins:
        written = apply_overrides(recipe.sections.get(verb) or {}, overrides).get("plugins") or []
        added = [str(Path(plugin).absolute()) for plugin in request.plugins]
        overrides.append(f"plugins={json.dumps([*written, *added])}")
    return recipe, VERBS[verb].completed(recipe.job(verb, overrides), recipe)


def _job_and_overrides(verb: str, words: tuple[str, ...]) -> tuple[list[str], list[str]]:
    """The one JOB, if there is one, and the overrides, in any order; SpecError for other words."""
    from colddiff.errors import SpecError

    named = [word for word in words if "=" not in word or STEP.fullmatch(word)]
    overrides = [word for word in words if word not in named]
    if len(named) > 1 and "=" in words:
        raise SpecError("key=value is one word: write it without spaces, such as seed=3")
    if len(named) > 1:
        job = next((word for word in named if word not in VERBS), "JOB")
        command = shlex.join(["colddiff", "submit", verb, job, *overrides])
        raise SpecError(
            f"{named[1]!r} is not key=value, and JOB is already {named[0]!r}: write `{command}`"
        )
    return named, overrides


def _refuse_address(verb: str, overrides: list[str]) -> None:
    """SpecError for ``adress=...``: no field of a job is near, and an option is."""
    from difflib import get_close_matches

    from colddiff.errors import SpecError

    for key, _, value in (word.partition("=") for word in overrides):
        alike = get_close_matches(key, ["address"], cutoff=ALIKE)
        if alike and key not in VERBS[verb].spec().model_fields:
            raise SpecError(
                f"{key}: no field of a job: the address of a cluster is an option, "
                f"`--address {shlex.quote(value)}`"
            )


def _refuse_made(verb: str, word: str, overrides: list[str]) -> None:
    """SpecError for a job or a checkpoint in the place of a recipe, with the command to write."""
    from colddiff.errors import SpecError

    made = MADE.search(word)
    if made is None or word.endswith((".yaml", ".yml")):
        return
    best = "" if "@" in word or "/" in word else "@best"
    takes = VERBS[verb].spec().model_fields
    what, way = f"{word!r} names a job or what it made, and JOB is a recipe or a YAML file", ""
    if made[1] == "train" and "checkpoint" in takes:
        way = f"checkpoint={word}{best}"
    elif made[1] == "train" and START in takes:
        way = f"JOB --from {word}{best}"
    elif made[1] == "generate" and "samples" in takes:
        way = f"samples={word}"
    if way:
        more = f" {shlex.join(overrides)}" if overrides else ""
        what += f": did you mean `colddiff submit {verb} {way}{more}`?"
    raise SpecError(what)


def _no_verb(words: list[str]) -> SpecError:
    """The error of a command that names no verb first: with the command that does."""
    from colddiff.errors import ColddiffError, SpecError
    from colddiff.jobs.recipes import load_recipe
    from colddiff.spec import nearest

    verbs = [word for word in words if word in VERBS]
    rest = [word for word in words if word not in VERBS]
    if not verbs:
        job = next((word for word in words if "=" not in word and word[0:1] != "-"), None)
        try:
            verbs = ["VERB"] if job is None else [*load_recipe(job).sections] or ["VERB"]
        except ColddiffError:
            close = nearest(words[0], VERBS)
            return SpecError(f"submit: no verb {words[0]!r}{close} (one of {', '.join(VERBS)})")
    if not any("=" not in word and word[0:1] != "-" for word in rest):
        rest = ["JOB", *rest]
    command = shlex.join(["colddiff", "submit", verbs[0], *rest])
    return SpecError(f"submit: the verb comes first: `{command}` (verbs: {', '.join(VERBS)})")


def completed_job(job: Job, recipe: Recipe, request: Request) -> Job:
    """The job with the checkpoint of its file's training, and the plugins that its user trusts."""
    return _with_trusted(_with_checkpoint(job, recipe), request)


def _with_checkpoint(job: Job, recipe: Recipe) -> Job:
    """The job with the checkpoint of the same file's train job, if it names none itself."""
    if not _needs_training(job, recipe):
        return job
    from colddiff.jobs.resolve import trained_id
    from colddiff.stores.open import storage_at

    place = storage_at(job.storage)
    return job.model_copy(
        update={"checkpoint": trained_id(recipe.train, slugify(recipe.name), place)}
    )


def _with_trusted(job: Job, request: Request) -> Job:
    """The job with the plugins of its checkpoint that the user trusts."""
    if not request.trusted:
        return job
    from colddiff.checkpoints.trusted_plugins import with_trusted
    from colddiff.cluster.home import Home
    from colddiff.stores.open import storage_at

    place = storage_at(job.storage)
    folder = Home.from_environment().path / "plugins"
    return with_trusted(job, request.trusted, folder, place)


def _needs_training(job: Job, recipe: Recipe) -> bool:
    return VERBS[job.verb].needs_checkpoint(job) and "train" in recipe.sections


def _refuse_contradictions(request: Request) -> None:
    from colddiff.errors import SpecError

    if request.local and (request.address is not None or request.detach):
        other = "--address" if request.address is not None else "--detach"
        raise SpecError(f"--local runs the job in this process: it cannot be used with {other}")
    if request.rate is not None and not request.dry_run:
        raise SpecError("--rate is for an estimate: use it with submit train --dry-run")


def _resolved(job: Job, slug: str, request: Request) -> tuple[Callable[[], Runner], ResolvedJob]:
    """What makes the runner, and the job with absolute addresses and its id."""
    from colddiff.jobs.in_process import InProcess
    from colddiff.jobs.resolve import refuse_paths, resolve

    if request.local:
        return InProcess, resolve(job, slug, new=request.new)

    from colddiff.cluster.connect import given_cluster, started_cluster
    from colddiff.cluster.home import Home
    from colddiff.cluster.ray_jobs import RayJobs
    from colddiff.cluster.versions import refuse_other_versions

    home = Home.from_environment()
    cluster = given_cluster(request.address, home)
    remote = cluster is not None and not cluster.local
    runner = None
    if cluster is not None:
        if remote and not cluster.loopback and not request.shared_path:
            refuse_paths(job)
        # Connect before packing the data, which can take long.
        runner = RayJobs(cluster)
        refuse_other_versions(runner.cluster)
    resolved = resolve(job, slug, remote=remote, shared_path=request.shared_path, new=request.new)
    return lambda: runner or RayJobs(started_cluster(home)), resolved
