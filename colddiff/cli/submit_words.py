"""Words of `colddiff submit` that are no verb and no option: answered with the command to write."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Any

from typer.core import TyperCommand, TyperGroup

from colddiff.jobs.verb import VERBS

if TYPE_CHECKING:
    from colddiff.errors import SpecError


class VerbGroup(TyperGroup):
    """The verbs; a JOB or key=value in their place is answered with the command to write."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """The verb and what follows it; SpecError where the first word is none."""
        if args and args[0] not in self.commands:
            raise _no_verb(args)
        return super().resolve_command(ctx, args)


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
