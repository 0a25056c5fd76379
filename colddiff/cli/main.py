"""`colddiff`: the command line. Heavy modules are only imported once a command is known."""

from __future__ import annotations

import errno
import os
import shlex
import sys
import traceback
from functools import cache
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from typer.core import TyperGroup

from colddiff import __version__
from colddiff.cli import (
    cluster,
    data,
    doctor,
    export,
    figure,
    gc,
    import_reference,
    report,
    restore,
    slurm,
    submit,
)
from colddiff.cli.catalogue import commands as catalogue
from colddiff.cli.degradation import check, preview
from colddiff.cli.jobs import commands as jobs
from colddiff.cli.jobs.delete import delete
from colddiff.cli.jobs.listed import list_
from colddiff.cli.output import emit, note, note_loading, one_line
from colddiff.errors import ERROR_LINE, ColddiffError, SpecError
from colddiff.jobs.status import INTERRUPTED
from colddiff.jobs.verb import VERBS
from colddiff.machine.deferred_import import defer_import
from colddiff.machine.garbage import collect_seldom
from colddiff.machine.streams import Streams

MOST_DETAILS = 1000
"""Lines about single things that are wrong, before the line that ends a command."""


class Commands(TyperGroup):
    """All commands; a verb in their place is answered with the command that submits it."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """The command and what follows it; SpecError where the first word is a verb."""
        if args and args[0] not in self.commands and args[0] in VERBS:
            command = shlex.join(["colddiff", "submit", *args])
            raise SpecError(f"{args[0]} is a job to submit: write `{command}`")
        return super().resolve_command(ctx, args)


app = typer.Typer(
    name="colddiff",
    cls=Commands,
    no_args_is_help=True,
    add_completion=True,
    # Rich takes longer to import than the rest of the command line.
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Cold diffusion for any image degradation, as resumable jobs on a Ray cluster.",
)
app.add_typer(submit.app, name="submit")
app.add_typer(cluster.app, name="cluster")
app.add_typer(data.app, name="data")
app.command("list")(list_)
app.command("status")(jobs.status)
app.command("logs")(jobs.logs)
app.command("stop")(jobs.stop)
app.command("wait")(jobs.wait)
app.command("delete")(delete)
app.command("slurm")(slurm.slurm)
app.command("slurm-job", hidden=True)(slurm.slurm_job)
app.command("recipes")(catalogue.recipes)
app.command("fields")(catalogue.fields)
for _noun in catalogue.KINDS:
    app.command(_noun)(catalogue.kinds_command(_noun))
app.command("doctor")(doctor.doctor)
app.command("gc")(gc.gc)
app.command("check")(check.check)
app.command("preview")(preview.preview)
app.command("restore")(restore.restore)
app.command("figure")(figure.figure)
app.command("report")(report.report)
app.command("export")(export.export)
app.command("import-reference")(import_reference.import_reference)


def _print_version(requested: bool) -> None:
    if requested:
        emit(__version__)
        raise typer.Exit


@app.callback()
def colddiff(
    version: Annotated[
        bool,
        typer.Option(
            "--version", is_eager=True, callback=_print_version, help="Print the version."
        ),
    ] = False,
) -> None:
    """Cold diffusion for any image degradation, as resumable jobs on a Ray cluster."""


@app.command()
def demo(
    overrides: Annotated[
        list[str] | None,
        typer.Argument(metavar="[key=value ...]", help="Fields of the recipe `quickstart` to set."),
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder for all output.")] = Path("demo"),
) -> None:
    """Train on digits, evaluate and draw. On a private cluster; same as `make demo`."""
    from colddiff.demo import run_demo

    raise typer.Exit(run_demo(out, tuple(overrides or ())))


PRINTING = (
    *("list", "status", "logs", "check", "doctor", "--version", "--help"),
    *("recipes", "fields", *catalogue.KINDS),
)
"""Commands whose whole work is what they print."""
PATHS_AND_DISKS = {
    **dict.fromkeys((errno.ENAMETOOLONG, errno.ELOOP, errno.EACCES, errno.EPERM, errno.ENOTDIR), 2),
    **dict.fromkeys((errno.EROFS, errno.ENOSPC, errno.EDQUOT), 1),
}
"""Exit codes of what the system says about a path: what was asked for cannot be, or was tried."""
MOST_OF_A_PATH = 200
INTERRUPTED_LINE = "colddiff: interrupted"
LONGEST = 2000
"""Characters of a message: the way out is at its end, and is kept."""


def main() -> None:
    """Entry point: runs the command line; a ColddiffError becomes one line and its exit code."""
    collect_seldom()
    # Jobs' fields and folders need no torch, and most of the time of a short command is its import.
    defer_import("torch", note_loading)
    streams = Streams()
    try:
        _run()
    except SystemExit as ended:
        if ended.code not in (0, None) or not streams.lost:
            raise
        note(f"colddiff: stdout cannot be written ({streams.lost}): its output is incomplete")
        if sys.argv[1:2] and sys.argv[1] in PRINTING:
            sys.exit(1)
        raise


@cache
def command() -> Any:
    """``app`` with its commands; made of their signatures, which takes 0.03 s, once a process."""
    return typer.main.get_command(app)


def _run() -> None:
    try:
        command()(prog_name="colddiff")
    except ColddiffError as error:
        said = str(error)
        # The line that ends the command names the first few itself.
        details = [line for line in getattr(error, "details", ()) if line not in said]
        for line in details[:MOST_DETAILS]:
            note(f"  {one_line(line)}")
        _end(error, " ".join(str(error).split()), error.exit_code)
    except OSError as error:
        # A path that somebody wrote, or a disk: no bug, wherever it was noticed.
        if error.filename is None or error.errno not in PATHS_AND_DISKS:
            _unexpected(error)
        what = f"{str(error.filename)[:MOST_OF_A_PATH]}: {error.strerror}"
        _end(error, f"{what}; use another path", PATHS_AND_DISKS[error.errno])
    except KeyboardInterrupt:
        note(INTERRUPTED_LINE)
        sys.exit(INTERRUPTED)
    except SystemExit as ended:
        # typer turns Ctrl-C into a silent exit; a command that has said what it leaves has none.
        if ended.code == INTERRUPTED and _is_of_interrupt(ended):
            note(INTERRUPTED_LINE)
        raise
    except Exception as error:
        _unexpected(error)


def _is_of_interrupt(error: BaseException | None) -> bool:
    while error is not None and not isinstance(error, KeyboardInterrupt):
        error = error.__cause__ or error.__context__
    return error is not None


def _unexpected(error: Exception) -> NoReturn:
    what = " ".join(f"{type(error).__name__}: {error}".split())
    advice = "this is a bug in colddiff; set COLDDIFF_TRACEBACK=1 for a traceback"
    _end(error, f"unexpected {what}; {advice}", 1)


def _end(error: Exception, message: str, code: int) -> NoReturn:
    if os.environ.get("COLDDIFF_TRACEBACK", "0") not in ("", "0"):
        traceback.print_exception(error)
    if len(message) > LONGEST:
        message = f"{message[: LONGEST // 2]} ... {message[-LONGEST // 2 :]}"
    note(f"{ERROR_LINE}{message}")
    sys.exit(code)


if __name__ == "__main__":
    main()
