"""`colddiff fields | recipes | degradations | ...`: what there is, and what it consists of."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from colddiff.cli.options import Json, Plugins
from colddiff.cli.output import emit, emit_json, emit_table, emit_text, terminal_width

if TYPE_CHECKING:
    from colddiff.cli.catalogue.fields import Field, FieldsAtPath

KINDS: Mapping[str, str] = {
    "degradations": "D(x, t)",
    "schedules": "parameters of D over t",
    "restorers": "networks R(x_t, t)",
    "samplers": "ways from x_T to x_0",
    "terminals": "distributions of x_T",
    "features": "networks of Frechet distances",
}
"""By the name of its command: what a catalogue of kinds holds."""


def kinds_command(noun: str) -> Callable[..., None]:
    """``colddiff NOUN [KIND]``: the same for every catalogue, so it is written once."""

    def command(
        kind: Annotated[str | None, typer.Argument(help="Show what this one consists of.")] = None,
        plugin: Plugins = None,
        as_json: Json = False,
    ) -> None:
        from colddiff.cli.catalogue.kinds import find_kind, list_kinds
        from colddiff.spec.plugins import load_plugins

        load_plugins(plugin or ())
        if kind is None:
            about = list_kinds(noun)
            if as_json:
                emit_json(about)
            else:
                emit_table(("KIND", ""), about.items())
            return
        found = find_kind(noun, kind)
        if as_json:
            said = {"properties": found.properties} if found.properties else {}
            emit_json({"kind": kind, **_json(found.description, found.fields), **said})
            return
        emit_text(f"{kind}: {found.description}")
        if found.properties:
            first, *others = found.properties.items()
            emit_table(first, others)
        else:
            _emit_fields(found.fields)

    what = "its properties" if noun == "samplers" else "its fields, units, bounds and search ranges"
    command.__doc__ = f"List the {noun}: {KINDS[noun]}. With KIND, {what}."
    return command


def fields(
    verb: Annotated[str, typer.Argument(metavar="VERB", help="train, evaluate, generate, ...")],
    path: Annotated[
        str, typer.Argument(metavar="[PATH]", help="A field, such as degradation.sigma.")
    ] = "",
    plugin: Plugins = None,
    as_json: Json = False,
) -> None:
    """List the fields of a job, or below one. With types, defaults, units and bounds."""
    from colddiff.cli.catalogue.fields import find_fields, parts_of_a_job
    from colddiff.jobs.verb import VERBS
    from colddiff.spec.plugins import load_plugins

    load_plugins(plugin or ())
    place = find_fields(verb, path)
    if as_json:
        emit_json({"verb": verb, "path": path, **_place_json(place)})
        return
    if not path:
        emit_text(f"{verb}: {place.below[0].description}")
        for heading, part in parts_of_a_job(VERBS[verb].spec()).items():
            emit(f"\n{heading}")
            _emit_fields(part)
        emit("")
        emit_text(
            f"colddiff fields {verb} FIELD shows what is inside one of type `fields` or a kind."
        )
        return
    _emit_place(place)


def recipes(
    name: Annotated[
        str | None,
        typer.Argument(help="Show this one: its YAML with a comment on each field."),
    ] = None,
    schema: Annotated[
        bool, typer.Option("--schema", help="Print the JSON schema of a job file, for editors.")
    ] = False,
    plugin: Plugins = None,
    as_json: Json = False,
) -> None:
    """List the built-in recipes, or explain one. `colddiff submit VERB RECIPE` takes them."""
    from colddiff.cli.catalogue.recipe import narrowed, recipe_text
    from colddiff.errors import SpecError
    from colddiff.jobs.recipes import list_recipes, load_recipe
    from colddiff.spec.plugins import load_plugins

    if schema and name is not None:
        raise SpecError("--schema is of any job file: leave the name out")
    if plugin and not schema and name is None:
        raise SpecError("--plugin adds its kinds to the schema: it goes with --schema or a NAME")
    load_plugins(plugin or ())
    if schema:
        _print_schema(as_json)
        return
    if name is not None:
        found = load_recipe(name)
        text = recipe_text(found)
        if as_json:
            numbers = {"targets": found.targets, "measured": found.measured}
            emit_json({**_about(found), **numbers, "sections": found.sections})
        else:
            width = terminal_width()
            emit((text if width is None else narrowed(text, width)).rstrip())
        return
    every = [load_recipe(name) for name in list_recipes()]
    if as_json:
        emit_json([_about(recipe) for recipe in every])
        return
    rows = [
        # The first line is a summary; the rest are notes on differences from the paper.
        (recipe.name, " ".join(sorted(recipe.sections)), recipe.description.partition("\n")[0])
        for recipe in every
    ]
    emit_table(("RECIPE", "VERBS", ""), rows)


def _about(recipe: Any) -> dict[str, Any]:
    return {
        "name": recipe.name,
        "description": recipe.description,
        "verbs": sorted(recipe.sections),
        "variants": list(recipe.variants),
        "pack": recipe.pack,
    }


def _print_schema(as_json: bool) -> None:
    from colddiff.jobs.schema import job_file_schema

    if as_json:
        emit_json(job_file_schema())
    else:
        emit(json.dumps(job_file_schema(), indent=2))


def _json(description: str, fields: Mapping[str, Field]) -> dict[str, Any]:
    shown = {name: asdict(field) for name, field in fields.items()}
    return {"description": description, "fields": shown}


def _place_json(place: FieldsAtPath) -> dict[str, Any]:
    own = [{"of": kind, **asdict(field)} for kind, field in place.field]
    found: dict[str, Any] = {"field": own} if own else {}
    named = {part.kind: _json(part.description, part.fields) for part in place.below if part.kind}
    if named:
        found["kinds"] = named
    for part in place.below:
        if not part.kind:
            found |= _json(part.description, part.fields)
    return found


def _emit_place(place: FieldsAtPath) -> None:
    last = place.path.rpartition(".")[2]
    own = {f"{last} ({kind})" if kind else last: field for kind, field in place.field}
    if own:
        _emit_fields(own)
    for number, part in enumerate(place.below):
        title = f"{part.kind}: {part.description}" if part.kind else part.description
        if own or number:
            emit("")
        emit_text(title)
        if part.fields:
            _emit_fields(part.fields)


def _emit_fields(fields: Mapping[str, Field]) -> None:
    """A table of the columns that say something."""
    columns = ("type", "default", "unit", "bounds", "search")
    rows = {name: asdict(field) for name, field in fields.items()}
    kept = [column for column in columns if any(row[column] for row in rows.values())]
    header = ("FIELD", *(column.upper() for column in kept), "")
    table: Sequence[Sequence[str]] = [
        (name, *(row[column] for column in kept), row["description"]) for name, row in rows.items()
    ]
    if rows:
        emit_table(header, table)
    else:
        emit("(no fields)")
