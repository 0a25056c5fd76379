"""Commands of this project's documents: what a reader would copy, as lists of words."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from colddiff.cli import main

ROOT = Path(__file__).resolve().parents[1]
COMMAND = re.compile(r"^\s*(?:[-#$] *)*(?:(?P<name>\w+)=\$\()?colddiff [a-z-].*$")
REDIRECTED = {">", ">>", "|", "&&", "&"}


def documents() -> list[Path]:
    """Every page that shows commands."""
    pages = [ROOT / "README.md", ROOT / "jobs" / "README.md", ROOT / "cluster.yaml"]
    pages += sorted((ROOT / "infra").rglob("*.md"))
    return [*pages, *sorted((ROOT / "jobs").rglob("*.yaml"))]


@dataclass(frozen=True)
class Shown:
    """A command as a page shows it."""

    words: list[str]
    """After ``colddiff``; `$name` is what an earlier command printed."""
    name: str = ""
    """What the page calls the line that it prints: ``job=$(colddiff ...)``."""
    code: int | None = None
    """The exit code that a comment after it says, as a number alone."""


def commands_in(page: Path) -> Iterator[list[str]]:
    """Words after ``colddiff`` of each command, comments and continued lines taken care of."""
    return (shown.words for shown in shown_in(page))


def shown_in(page: Path) -> Iterator[Shown]:
    """All commands of a page, in their order."""
    fenced = False
    lines = iter(page.read_text().splitlines())
    for line in lines:
        if line.lstrip().startswith("```"):
            fenced = not fenced
        can_be = fenced or page.suffix != ".md" or line.startswith("    ")
        found = COMMAND.match(line) if can_be else None
        if found is None:
            continue
        while line.endswith("\\"):
            line = line[:-1] + next(lines).lstrip("# ")
        code = re.search(r"# (\d)$", line)
        text = line.strip("#$ ")
        if name := found["name"] or "":
            text = text.removeprefix(f"{name}=$(").replace(")", "", 1)
        for part in re.split(r";\s+", text):
            words = _words(part)
            if words[:1] == ["colddiff"]:
                yield Shown(words[1:], name, int(code[1]) if code else None)


def _words(text: str) -> list[str]:
    words = shlex.split(text, comments=True)
    end = next((n for n, word in enumerate(words) if word in REDIRECTED), len(words))
    return words[:end]


def files_in(page: Path) -> dict[str, str]:
    """Files whose content a page shows, by the name in their first line."""
    found = re.findall(r"^```yaml\n# ([\w.-]+\.yaml)\n(.*?)^```", page.read_text(), re.M | re.S)
    return dict(found)


def is_usage(words: list[str]) -> bool:
    """Whether a line shows what a command takes, such as `[--seed N]`, and is no command."""
    return any(re.match(r"\[-|[A-Z]+\|", word) for word in words)


def parsed(words: list[str]) -> tuple[list[str], dict[str, Any]]:
    """The path and parameters of the command that ``words`` name, as it would be run; runs nothing.

    Raises what the command line prints as a usage error.
    """
    command = main.command()
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
