"""A recipe as a job file in which a comment says what each field means."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from typing import Any

import yaml
from pydantic.fields import FieldInfo

from colddiff.cli.catalogue.fields import described, specs_below, summary
from colddiff.jobs.recipes import Recipe
from colddiff.jobs.schema import ABOUT
from colddiff.jobs.verb import VERBS
from colddiff.spec import Spec

WIDTH = 100
"""Of a line with its comment; a longer comment stands above its field."""


def recipe_text(recipe: Recipe) -> str:
    """The recipe as YAML that `submit` takes, commented; SpecError if a section is invalid."""
    for verb in recipe.sections:
        recipe.job(verb)
    lines: list[str] = []
    for key in ("name", "description", "pack"):
        value = getattr(recipe, key)
        if value:
            lines += _entry(key, value, str(ABOUT[key]["description"]), 0)
    lines += _sections(recipe.sections, {}, 0)
    for key, numbers in {"targets": recipe.targets, "measured": recipe.measured}.items():
        if numbers:
            lines += [*_comment(str(ABOUT[key]["description"]), 0), f"{key}:"]
            lines += _mapping(numbers, None, {}, 1)
    if recipe.variants:
        lines += ["# what `--variant NAME` merges over the sections above", "variants:"]
        for name, changed in recipe.variants.items():
            lines += [f"  {name}:", *_sections(changed, recipe.sections, 2)]
    return "\n".join(lines) + "\n"


def narrowed(text: str, width: int) -> str:
    """``recipe_text`` for a terminal of ``width`` columns: longer comments above their fields.

    A value that is longer stays on its line, and so do the lines of a text.
    """
    lines = []
    for line in text.splitlines():
        field, mark, about = line.partition("  # ")
        indent = " " * (len(line) - len(line.lstrip()))
        if len(line) <= width or not (mark or line.lstrip().startswith("# ")):
            lines.append(line)
            continue
        about = about or line.lstrip("# ")
        lines += [f"{indent}# {part}" for part in textwrap.wrap(about, width - len(indent) - 2)]
        lines += [field] if mark else []
    return "\n".join(lines) + "\n"


def _sections(sections: Mapping[str, Any], above: Mapping[str, Any], depth: int) -> list[str]:
    """Sections by verb; those of a variant, with the file's own ``above`` them."""
    lines = []
    for verb, section in sections.items():
        spec = VERBS[verb].spec() if verb in VERBS else None
        about = summary(spec) if spec else str(ABOUT.get(verb, {}).get("description", ""))
        if spec and section:
            lines += [*_comment(about, depth), f"{'  ' * depth}{verb}:"]
            lines += _mapping(section, spec, above.get(verb) or {}, depth + 1)
        else:
            lines += _entry(verb, section, about, depth)
    return lines


def _mapping(
    data: Mapping[str, Any], spec: type[Spec] | None, above: Mapping[str, Any], depth: int
) -> list[str]:
    """The fields of ``data`` as lines, each with what ``spec`` says of it."""
    lines: list[str] = []
    for key, value in data.items():
        field = spec.model_fields.get(key) if spec else None
        if key == "kind" and spec:
            lines += _entry(key, value, summary(spec), depth)
            continue
        about = ""
        if field is not None:
            words = described(key, field)
            unit = f"[{words.unit}]" if words.unit else ""
            about = " ".join(filter(None, (words.description, unit)))
        beside = above.get(key) if isinstance(above.get(key), Mapping) else {}
        below = _spec_of(field, value, beside or {})
        if isinstance(value, Mapping) and value and (below or depth < 2):
            lines += [*_comment(about, depth), f"{'  ' * depth}{_scalar(key)}:"]
            lines += _mapping(value, below, beside or {}, depth + 1)
        else:
            lines += _entry(key, value, about, depth)
    return lines


def _spec_of(field: FieldInfo | None, value: Any, above: Mapping[str, Any]) -> type[Spec] | None:
    """The spec that a value of ``field`` is read as; a variant may leave out the kind."""
    if field is None or not isinstance(value, Mapping):
        return None
    specs = dict(specs_below(field))
    return specs.get(str(value.get("kind", above.get("kind", ""))))


def _entry(key: str, value: Any, about: str, depth: int) -> list[str]:
    """One field, its comment beside it where there is room, else above."""
    indent = "  " * depth
    if isinstance(value, str) and "\n" in value:
        mark = "|" if value.endswith("\n") else "|-"
        text = textwrap.indent(value.rstrip("\n"), f"{indent}  ").splitlines()
        return [*_comment(about, depth), f"{indent}{key}: {mark}", *text]
    line = f"{indent}{_scalar(key)}: {_scalar(value)}"
    beside = f"{line}  # {about}" if about else line
    if len(beside) <= WIDTH:
        return [beside]
    return [*_comment(about, depth), line]


def _comment(about: str, depth: int) -> list[str]:
    indent = "  " * depth
    return [f"{indent}# {line}" for line in textwrap.wrap(about, WIDTH - len(indent) - 2)]


def _scalar(value: Any) -> str:
    """A value as YAML on one line."""
    text = yaml.safe_dump(value, default_flow_style=True, width=10**6, sort_keys=False)
    return text.removesuffix("...\n").strip()
