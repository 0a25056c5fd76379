"""`colddiff degradations | recipes`: lists the available degradations and recipes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from colddiff.cli.options import Json, Plugins
from colddiff.cli.output import emit, emit_json, emit_table

if TYPE_CHECKING:
    from pydantic.fields import FieldInfo


def degradations(
    kind: Annotated[str | None, typer.Argument(help="Show the fields of this kind.")] = None,
    as_json: Json = False,
) -> None:
    """List the kinds of degradation; with KIND, its fields, units, bounds and search ranges."""
    from colddiff.degradations import DEGRADATIONS
    from colddiff.errors import SpecError
    from colddiff.spec import nearest

    if kind is None:
        about = {name: _summary(DEGRADATIONS[name]) for name in DEGRADATIONS}
        if as_json:
            emit_json(about)
        else:
            emit_table(("KIND", ""), about.items())
        return
    if kind not in DEGRADATIONS:
        raise SpecError(
            f"no degradation {kind!r}{nearest(kind, DEGRADATIONS)} (one of "
            f"{', '.join(DEGRADATIONS)})"
        )
    spec = DEGRADATIONS[kind]
    fields = {
        name: _field(name, field) for name, field in spec.model_fields.items() if name != "kind"
    }
    if as_json:
        emit_json({"kind": kind, "description": _summary(spec), "fields": fields})
        return
    emit(f"{kind}: {_summary(spec)}")
    columns = ("default", "unit", "bounds", "search", "description")
    rows = [(name, *(field[column] for column in columns)) for name, field in fields.items()]
    emit_table(("FIELD", "DEFAULT", "UNIT", "BOUNDS", "SEARCH", ""), rows)


def recipes(
    schema: Annotated[
        bool, typer.Option("--schema", help="Print the JSON schema of a job file, for editors.")
    ] = False,
    plugin: Plugins = None,
    as_json: Json = False,
) -> None:
    """List the built-in recipes, for `colddiff submit VERB RECIPE`."""
    from colddiff.errors import SpecError
    from colddiff.jobs.recipes import list_recipes, load_recipe

    if plugin and not schema:
        raise SpecError("--plugin adds its kinds to the schema: it goes with --schema")
    if schema:
        _print_schema(plugin or (), as_json)
        return
    found = [load_recipe(name) for name in list_recipes()]
    if as_json:
        emit_json(
            [
                {
                    "name": recipe.name,
                    "description": recipe.description,
                    "verbs": sorted(recipe.sections),
                    "variants": list(recipe.variants),
                    "pack": recipe.pack,
                }
                for recipe in found
            ]
        )
        return
    rows = [
        # The first line is a summary; the rest are notes on differences from the paper.
        (recipe.name, " ".join(sorted(recipe.sections)), recipe.description.partition("\n")[0])
        for recipe in found
    ]
    emit_table(("RECIPE", "VERBS", ""), rows)


def _print_schema(plugins: Sequence[str], as_json: bool) -> None:
    from colddiff.jobs.schema import job_file_schema
    from colddiff.spec.plugins import load_plugins

    load_plugins(plugins)
    if as_json:
        emit_json(job_file_schema())
    else:
        emit(json.dumps(job_file_schema(), indent=2))


def _summary(spec: type) -> str:
    text = (spec.__doc__ or "").strip()
    return text.splitlines()[0].replace("``", "") if text else ""


def _field(name: str, field: FieldInfo) -> dict[str, str]:
    from colddiff.spec import Choices, Range, Spec, Unit

    unit = next((mark.name for mark in field.metadata if isinstance(mark, Unit)), "")
    search = next((str(mark) for mark in field.metadata if isinstance(mark, Range | Choices)), "")
    default: Any = field.get_default(call_default_factory=False)
    if isinstance(default, Spec):
        if not search:
            search = _inner_search(name, default)
        default = default.to_dict()
    return {
        "default": "(required)" if field.is_required() else _compact(default),
        "unit": unit,
        "bounds": _bounds(field),
        "search": search,
        "description": field.description or "",
    }


def _bounds(field: FieldInfo) -> str:
    """The field's numeric bounds, or the literals it accepts."""
    from typing import Literal, get_args, get_origin

    if get_origin(field.annotation) is Literal:
        return " | ".join(map(str, get_args(field.annotation)))
    signs = {"gt": ">", "ge": ">=", "lt": "<", "le": "<="}
    return ", ".join(
        f"{signs[name]} {getattr(mark, name):g}"
        for mark in field.metadata
        for name in signs
        if getattr(mark, name, None) is not None
    )


def _inner_search(name: str, spec: Any) -> str:
    """Ranges below the field ``name``, by the paths that a search's ``over`` takes."""
    from colddiff.schedules import path_ranges
    from colddiff.spec import search_ranges

    found = search_ranges(spec, f"{name}.") | path_ranges(spec, f"{name}.")
    return ", ".join(f"{path} {span}" for path, span in found.items())


def _compact(value: Any) -> str:
    if isinstance(value, dict):
        inner = ", ".join(
            f"{key}: {_compact(item)}" for key, item in value.items() if item is not None
        )
        return f"{{{inner}}}"
    if isinstance(value, bool):
        return str(value).lower()
    return "null" if value is None else str(value)
