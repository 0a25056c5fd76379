"""Commands of this project's documents: what a reader would copy, as lists of words."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer

from colddiff.cli.main import app

ROOT = Path(__file__).resolve().parents[1]
COMMAND = re.compile(r"^\s*(?:[-#$] *)*(colddiff [a-z-].*)$")
REDIRECTED = {">", ">>", "|", "&&", "&"}


def documents() -> list[Path]:
    """Every page that shows commands."""
    pages = [ROOT / "README.md", ROOT / "jobs" / "README.md", ROOT / "cluster.yaml"]
    pages += sorted((ROOT / "infra").rglob("*.md"))
    return [*pages, *sorted((ROOT / "jobs").rglob("*.yaml"))]


def commands_in(page: Path) -> Iterator[list[str]]:
    """Words after ``colddiff`` of each command, comments and continued lines taken care of."""
    fenced = False
    lines = iter(page.read_text().splitlines())
    for line in lines:
        if line.lstrip().startswith("```"):
            fenced = not fenced
        shown = fenced or page.suffix != ".md" or line.startswith("    ")
        if not (shown and COMMAND.match(line)):
            continue
        while line.endswith("\\"):
            line = line[:-1] + next(lines).lstrip("# ")
        for part in re.split(r";\s+", line.strip("#$ ")):
            words = _words(part)
            if words[:1] == ["colddiff"]:
                yield words[1:]


def _words(text: str) -> list[str]:
    words = shlex.split(text, comments=True)
    end = next((n for n, word in enumerate(words) if word in REDIRECTED), len(words))
    return words[:end]


def is_usage(words: list[str]) -> bool:
    """Whether a line shows what a command takes, such as `[--seed N]`, and is no command."""
    return any(re.match(r"\[-|[A-Z]+\|", word) for word in words)


def parsed(words: list[str]) -> tuple[list[str], dict[str, Any]]:
    """The path and parameters of the command that ``words`` name, as it would be run; runs nothing.

    Raises what the command line prints as a usage error.
    """
    command: Any = typer.main.get_command(app)
    path: list[str] = []
    rest = list(words)
    while True:
        context = command.make_context(path[-1] if path else "colddiff", rest)
        if not hasattr(command, "resolve_command"):
            return path, context.params
        given = [*context._protected_args, *context.args]
        if not given:
            return path, context.params
        name, command, rest = command.resolve_command(context, given)
        path.append(name)
