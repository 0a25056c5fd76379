"""The fields of specs as text: type, default, unit, bounds, search range, description."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic.fields import FieldInfo

from colddiff.errors import SpecError
from colddiff.jobs.job import Job, Operation
from colddiff.jobs.verb import VERBS
from colddiff.samplers import SAMPLERS
from colddiff.samplers.base import NameOfSampler
from colddiff.schedules import ScheduleSpec, path_ranges
from colddiff.spec import Choices, KindOf, Range, Spec, Unit, nearest, search_ranges

SIGNS = {"gt": ">", "ge": ">=", "lt": "<", "le": "<="}
NAMES = {str: "text", dict: "mapping", type(None): "null"}


@dataclass(frozen=True, slots=True)
class Field:
    """A field of a spec, in words; empty where there is nothing to say."""

    type: str
    default: str
    unit: str
    bounds: str
    search: str
    description: str
    changes: bool = False
    """Whether it may change between submissions of the same job (an operation field)."""


@dataclass(frozen=True, slots=True)
class Section:
    """The fields of one spec, by name; ``kind`` is its name among others, if it has one."""

    kind: str
    description: str
    fields: Mapping[str, Field]
    properties: Mapping[str, str] = dataclasses.field(default_factory=dict)
    """What else there is to say of it, by heading."""


@dataclass(frozen=True, slots=True)
class FieldsAtPath:
    """What is at a path of a job: the field itself, and the fields below it.

    Fields have the kind that they belong to, which is empty where there is no choice.
    """

    path: str
    field: Sequence[tuple[str, Field]]
    below: Sequence[Section]


def find_fields(verb: str, path: str = "") -> FieldsAtPath:
    """What a job of ``verb`` has at the dotted ``path``; SpecError naming the nearest one.

    A kind's name may stand in the path, and may be left out: ``degradation.blur.sigma``,
    ``degradation.sigma``.
    """
    if verb not in VERBS:
        raise SpecError(f"no verb {verb!r}{nearest(verb, VERBS)} (one of {', '.join(VERBS)})")
    holders: dict[str, type[Spec]] = {"": VERBS[verb].spec()}
    own: list[tuple[str, Field]] = []
    parts = path.split(".") if path else []
    for depth, part in enumerate(parts):
        if part in holders and part:
            holders, own = {part: holders[part]}, []
            continue
        found = {kind: cls for kind, cls in holders.items() if part in cls.model_fields}
        if not found:
            raise SpecError([(".".join(parts[: depth + 1]), _unknown(part, holders))])
        own = [(kind, described(part, cls.model_fields[part])) for kind, cls in found.items()]
        holders = {}
        for cls in found.values():
            holders |= dict(specs_below(cls.model_fields[part]))
    return FieldsAtPath(path, own, [section(kind, cls) for kind, cls in holders.items()])


def _unknown(part: str, holders: Mapping[str, type[Spec]]) -> str:
    kinds = [kind for kind in holders if kind]
    names = list(dict.fromkeys(name for cls in holders.values() for name in shown_fields(cls)))
    if not names and not kinds:
        return "there is nothing below it" if not holders else "it has no fields"
    known = f"fields: {', '.join(names)}" if names else "no fields"
    if kinds:
        known = f"kinds: {', '.join(kinds)}; {known}"
    return f"no such field{nearest(part, [*names, *kinds])} ({known})"


def section(kind: str, cls: type[Spec]) -> Section:
    """The fields of ``cls``, under the name ``kind``."""
    fields = {name: described(name, field) for name, field in shown_fields(cls).items()}
    return Section(kind, summary(cls), fields)


def shown_fields(cls: type[Spec]) -> dict[str, FieldInfo]:
    """The fields that a person sets: all but the name of the kind."""
    return {name: field for name, field in cls.model_fields.items() if name != "kind"}


def summary(cls: type) -> str:
    """The first line of a class's docstring."""
    text = (cls.__doc__ or "").strip()
    return text.splitlines()[0].replace("``", "") if text else ""


def specs_below(field: FieldInfo) -> Iterator[tuple[str, type[Spec]]]:
    """The specs that a field takes: each kind by its name, or one mapping with the name ""."""
    for annotation, marks in _leaves(field.annotation, field.metadata):
        registry = next((mark.registry for mark in marks if isinstance(mark, KindOf)), None)
        if registry is not None:
            yield from registry.items()
        elif isinstance(annotation, type) and issubclass(annotation, Spec):
            yield "", annotation


def described(name: str, field: FieldInfo) -> Field:
    """The field ``name`` in words; without a description of its own it has that of its spec."""
    own = next((mark for mark in field.metadata if isinstance(mark, Range | Choices)), None)
    default: Any = field.get_default(call_default_factory=True) if not field.is_required() else None
    search = str(own) if own is not None else ""
    if isinstance(default, ScheduleSpec) and own is None:
        search = _inner_search(name, default)
    below = dict(specs_below(field))
    about = summary(below[""]) if "" in below else ""
    return Field(
        type=_type(field.annotation, field.metadata),
        default="(required)" if field.is_required() else compact(default),
        unit=next((mark.name for mark in field.metadata if isinstance(mark, Unit)), ""),
        bounds=_bounds(field),
        search=search,
        description=" ".join((field.description or about).split()).removesuffix("."),
        changes=any(isinstance(mark, Operation) for mark in field.metadata),
    )


def parts_of_a_job(cls: type[Spec]) -> dict[str, dict[str, Field]]:
    """The fields of a job in two parts, by heading; those of another spec in one."""
    fields = section("", cls).fields
    if not issubclass(cls, Job):
        return {"": dict(fields)}
    return {
        "identity: these decide the job's id": {k: v for k, v in fields.items() if not v.changes},
        "operation: these may change from one submission to the next": {
            k: v for k, v in fields.items() if v.changes
        },
    }


def _leaves(annotation: Any, marks: Sequence[Any]) -> Iterator[tuple[Any, Sequence[Any]]]:
    """The types within a type, each with the annotations that stand on it."""
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        yield from _leaves(inner[0], [*marks, *inner[1:]])
    elif origin in (Union, UnionType):
        for part in inner:
            yield from _leaves(part, marks if part is not type(None) else ())
    elif origin is tuple:
        for part in inner:
            if part is not Ellipsis:
                yield from _leaves(part, ())
    elif origin is dict:
        yield from _leaves(inner[1], ())
    else:
        yield annotation, marks


def _type(annotation: Any, marks: Sequence[Any]) -> str:
    """A type as a person writes its values in YAML."""
    registry = next((mark.registry for mark in marks if isinstance(mark, KindOf)), None)
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _type(inner[0], [*marks, *inner[1:]])
    if origin in (Union, UnionType):
        *names, last = [_in_union(part, marks) for part in inner]
        return f"{', '.join(names)} or {last}"
    if registry is not None:
        return str(registry.noun)
    if origin is tuple and Ellipsis in inner:
        return f"list of {_type(inner[0], ())}"
    if origin is tuple:
        return f"[{', '.join(_type(part, ()) for part in inner)}]"
    if origin is Literal:
        return " or ".join(dict.fromkeys(NAMES.get(type(v), type(v).__name__) for v in inner))
    if isinstance(annotation, type) and issubclass(annotation, Spec):
        return "fields"
    if annotation is Any:
        return "any"
    return NAMES.get(origin or annotation, getattr(annotation, "__name__", str(annotation)))


def _in_union(part: Any, marks: Sequence[Any]) -> str:
    if get_origin(part) is Literal:
        return ", ".join(map(str, get_args(part)))
    return _type(part, marks if part is not type(None) else ())


def _bounds(field: FieldInfo) -> str:
    """The field's numeric bounds, or the literals it accepts; else those of the types within it."""
    if get_origin(field.annotation) is Literal:
        return " | ".join(map(str, get_args(field.annotation)))
    own = _limits(field.metadata)
    leaves = list(_leaves(field.annotation, ()))
    inner = [_limits(marks) for _, marks in leaves]
    if len(leaves) == 1 and get_origin(leaves[0][0]) is Literal:
        inner = [" | ".join(map(str, get_args(leaves[0][0])))]
    return own or next(filter(None, inner), "")


def _limits(marks: Sequence[Any]) -> str:
    marks = [inner for mark in marks for inner in (mark, *getattr(mark, "metadata", ()))]
    found = [
        f"{SIGNS[name]} {getattr(mark, name):,}"
        for mark in marks
        for name in SIGNS
        if getattr(mark, name, None) is not None
    ]
    found += [" | ".join(SAMPLERS) for mark in marks if isinstance(mark, NameOfSampler)]
    found += ["not empty" for mark in marks if getattr(mark, "min_length", None)]
    return ", ".join(found + [mark.pattern for mark in marks if getattr(mark, "pattern", None)])


def _inner_search(name: str, spec: Spec) -> str:
    """Ranges below the field ``name``, by the paths that a search's ``over`` takes."""
    found = search_ranges(spec, f"{name}.") | path_ranges(spec, f"{name}.")
    return ", ".join(f"{path} {span}" for path, span in found.items())


def compact(value: Any) -> str:
    """A value as YAML on one line; of a spec, what differs from the defaults of its fields."""
    if isinstance(value, Spec):
        fields = type(value).model_fields
        value = {
            name: inner
            for name, inner in value
            if name == "kind"
            or fields[name].is_required()
            or inner != fields[name].get_default(call_default_factory=True)
        }
    if isinstance(value, dict):
        inner = ", ".join(f"{key}: {compact(item)}" for key, item in value.items())
        return f"{{{inner}}}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(compact, value))}]"
    if isinstance(value, bool):
        return str(value).lower()
    return "null" if value is None else str(value)
