"""Options shared by many commands, and what is said of a field that is written as one."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand

if TYPE_CHECKING:
    from colddiff.errors import SpecError

Address = Annotated[
    str | None,
    typer.Option(
        "--address",
        metavar="URL",
        help="Dashboard URL; default: COLDDIFF_ADDRESS, RAY_ADDRESS, else the local cluster.",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print one line of JSON.")]
Storage = Annotated[
    str | None,
    typer.Option(
        "--storage",
        metavar="URI",
        help="Where jobs are stored; default: COLDDIFF_STORAGE, else ./runs.",
    ),
]
JobId = Annotated[
    str,
    typer.Argument(
        metavar="ID", help="Job id, or the beginning of one alone; see `colddiff list`."
    ),
]
JobIds = Annotated[
    list[str],
    typer.Argument(
        metavar="ID...", help="Job ids, or beginnings of one id alone; see `colddiff list`."
    ),
]
Plugins = Annotated[
    list[str] | None,
    typer.Option(
        "--plugin",
        metavar="FILE",
        help="Python file with degradations, restorers or samplers.",
    ),
]
TrustedPlugins = Annotated[
    list[str] | None,
    typer.Option(
        "--trust-plugin",
        metavar="SHA256",
        help="Allow this plugin, which came with the checkpoint, to run: read it first.",
    ),
]


class VerbCommand(TyperCommand):
    """A verb; a field that is written as an option is answered with how it is written."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """What is left of ``args``; SpecError for ``--num_steps=10``."""
        words = list(args)
        try:
            return super().parse_args(ctx, args)
        except Exception as error:
            # By name: typer may bring the package along that has the class.
            option = getattr(error, "option_name", None)
            if type(error).__name__ != "NoSuchOption" or not isinstance(option, str):
                raise
            if (refusal := _no_option(str(self.name), option, words)) is None:
                raise
        raise refusal


def _no_option(verb: str, option: str, words: list[str]) -> SpecError | None:
    """The error of an option that is a field of the verb's jobs; None for any other."""
    from colddiff.errors import SpecError
    from colddiff.jobs.verb import VERBS

    path = option.lstrip("-").replace("-", "_")
    if path.partition(".")[0] not in VERBS[verb].spec().model_fields:
        return None
    place = next((n for n, word in enumerate(words) if word.partition("=")[0] == option), None)
    value = "VALUE"
    if place is not None and "=" in words[place]:
        value = words[place].partition("=")[2]
    elif place is not None and len(words) > place + 1:
        value = words[place + 1]
    written = shlex.quote(f"{path}={value}")
    return SpecError(
        f"{option}: no option: fields of a job are written without dashes, `{written}`"
    )
