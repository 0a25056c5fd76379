"""`colddiff slurm`: a job as an sbatch script, and what that script runs."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from colddiff.cli.live_line import live_line
from colddiff.cli.options import Plugins, TrustedPlugins
from colddiff.cli.output import emit, note
from colddiff.cli.submit import Request, Words, completed_job, read_job
from colddiff.jobs.listing.ids import slugify
from colddiff.jobs.verb import VERBS

Name = Annotated[str | None, typer.Option(help="Name used in the job id; default: the job's name.")]
Variant = Annotated[str | None, typer.Option(help="Variant of the recipe.")]


def slurm(
    words: Words = None,
    nodes: Annotated[int, typer.Option(min=1, help="Number of nodes.")] = 1,
    time: Annotated[
        str | None,
        typer.Option(metavar="LIMIT", help="Time limit, as in sbatch: 90, 12:00:00 or 2-12."),
    ] = None,
    submit: Annotated[bool, typer.Option("--submit", help="Submit it with sbatch.")] = False,
    verb: Annotated[str, typer.Option(help="What to submit: train, generate, ...")] = "train",
    sbatch: Annotated[
        list[str] | None,
        typer.Option(
            metavar="OPTION",
            help="An option for sbatch, such as --sbatch=--partition=gpu; may be repeated.",
        ),
    ] = None,
    notice: Annotated[
        int,
        typer.Option(min=1, help="Seconds for the checkpoint before the allocation ends."),
    ] = 120,
    name: Name = None,
    variant: Variant = None,
    plugin: Plugins = None,
    trust_plugin: TrustedPlugins = None,
) -> None:
    """Run a job on Slurm, by an sbatch script. It is printed, or submitted.

    The script brings up Ray on the allocation, runs the job as `submit` would, and ends with its
    exit code. When the time is nearly up, or Slurm preempts it, it takes a checkpoint and requeues
    itself.
    STORAGE must be a folder that all nodes see, or an s3:// address.
    """
    from colddiff.cluster.slurm_script import Slurm, submit_script, write_script
    from colddiff.errors import SpecError

    if verb not in VERBS:
        raise SpecError(f"--verb: no {verb!r}; one of {', '.join(VERBS)}")
    request = Request(
        words=tuple(words or ()),
        name=name,
        variant=variant,
        plugins=tuple(plugin or ()),
        trusted=tuple(trust_plugin or ()),
    )
    recipe, _ = read_job(verb, request)  # refused here, not after hours in the queue
    slug = slugify(request.name or recipe.name)
    script = write_script(
        Slurm(nodes, time, notice, tuple(sbatch or ())),
        f"{verb}-{slug}",
        [verb, *_arguments(request)],
        Path.cwd(),
        os.environ,
    )
    if not submit:
        emit(script.rstrip())
        return
    number = submit_script(script)
    note(f"`squeue -j {number}` shows it; its log is {verb}-{slug}-{number}.log")
    emit(number)


def slurm_job(
    verb: str,
    words: Words = None,
    name: Name = None,
    variant: Variant = None,
    plugin: Plugins = None,
    trust_plugin: TrustedPlugins = None,
) -> None:
    """Run a job on the Slurm allocation of this process; `colddiff slurm` writes its script."""
    from colddiff.cluster.slurm_allocation import Allocation, run_in_allocation
    from colddiff.jobs.resolve import resolve

    allocation = Allocation.from_environment()
    request = Request(
        words=tuple(words or ()),
        name=name,
        variant=variant,
        plugins=tuple(plugin or ()),
        trusted=tuple(trust_plugin or ()),
    )
    recipe, job = read_job(verb, request)
    job = completed_job(job, recipe, request)
    with live_line(sys.stderr) as display:
        slug = slugify(request.name or recipe.name)
        resolved = resolve(job, slug, remote=True, shared_path=True)
        code = run_in_allocation(allocation, resolved, show=display.show, announce=emit)
    raise typer.Exit(code)


def _arguments(request: Request) -> list[str]:
    """The request as arguments of `slurm-job`."""
    options = {"--name": request.name, "--variant": request.variant}
    found = [f"{option}={value}" for option, value in options.items() if value is not None]
    found += [f"--plugin={plugin}" for plugin in request.plugins]
    found += [f"--trust-plugin={digest}" for digest in request.trusted]
    return [*found, *request.words]
