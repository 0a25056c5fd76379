"""Makes ``reference.md``, every field of every job and kind, from the specs."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path

from colddiff.cli.catalogue.commands import KINDS
from colddiff.cli.catalogue.fields import (
    Field,
    parts_of_a_job,
    section,
    shown_fields,
    specs_below,
    summary,
)
from colddiff.cli.catalogue.kinds import find_kind, list_kinds
from colddiff.jobs.recipes import list_recipes, load_recipe
from colddiff.jobs.verb import VERBS
from colddiff.spec import Spec

PAGE = Path(__file__).with_name("reference.md")
COLUMNS = ("type", "default", "unit", "bounds", "search", "description")
OPENING = """# Reference

Every field of every job and kind. Made from the code by `make docs-reference`; the same is printed
by `colddiff fields VERB [PATH]`, `colddiff degradations [KIND]` and the other catalogues. *Search*
is the range that a search takes unless it names another. A default in braces leaves the other
fields of that kind at theirs.
"""


def reference() -> str:
    """The page as Markdown."""
    return "\n".join([OPENING, *_jobs(), *_kinds(), *_recipes()])


def _jobs() -> Iterator[str]:
    nested: dict[type[Spec], list[str]] = {}
    for name in VERBS:
        spec = VERBS[name].spec()
        yield f"## `{name}`\n\n{summary(spec)}\n"
        for heading, fields in parts_of_a_job(spec).items():
            yield f"{heading[:1].upper()}{heading[1:]}.\n"
            yield from _table(fields)
        _collect(spec, name, nested)
    yield "## Parts of jobs\n"
    for spec, paths in nested.items():
        yield f"### {', '.join(f'`{path}`' for path in paths)}\n\n{summary(spec)}\n"
        yield from _table(section("", spec).fields)


def _collect(spec: type[Spec], path: str, found: dict[type[Spec], list[str]]) -> None:
    """The mappings below ``spec``, each with the paths of the fields that take it."""
    for name, field in shown_fields(spec).items():
        below = dict(specs_below(field)).get("")
        if below is not None:
            found.setdefault(below, []).append(f"{path}.{name}")
            _collect(below, f"{path}.{name}", found)


def _kinds() -> Iterator[str]:
    for noun, what in KINDS.items():
        yield f"## {noun.capitalize()}\n\n{what}.\n"
        for kind in list_kinds(noun):
            found = find_kind(noun, kind)
            yield f"### `{kind}`\n\n{found.description}\n"
            if found.properties:
                yield from _markdown(("", ""), list(found.properties.items()))
            elif found.fields:
                yield from _table(found.fields)


def _recipes() -> Iterator[str]:
    yield "## Recipes\n\n`colddiff recipes NAME` shows each with a comment on every field.\n"
    rows = []
    for name in list_recipes():
        recipe = load_recipe(name)
        about = recipe.description.partition("\n")[0]
        rows.append((f"`{name}`", ", ".join(sorted(recipe.sections)), about))
    yield from _markdown(("recipe", "sections", ""), rows)


def _table(fields: Mapping[str, Field]) -> Iterator[str]:
    shown = {name: asdict(field) for name, field in fields.items()}
    kept = [column for column in COLUMNS if any(row[column] for row in shown.values())]
    rows = [(f"`{name}`", *(row[column] for column in kept)) for name, row in shown.items()]
    yield from _markdown(("field", *kept), rows)


def _markdown(header: tuple[str, ...], rows: list[tuple[str, ...]]) -> Iterator[str]:
    for row in (header, ("---",) * len(header), *rows):
        cells = [cell.replace("|", "\\|").replace("<", "&lt;") for cell in row]
        yield f"| {' | '.join(cells)} |"
    yield ""


if __name__ == "__main__":
    argparse.ArgumentParser(description=__doc__).parse_args()  # it takes nothing but --help
    PAGE.write_text(reference())
