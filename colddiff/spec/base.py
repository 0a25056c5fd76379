"""Base class of specs: frozen, JSON-serialisable, with one-line validation errors."""

from __future__ import annotations

import difflib
import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any, NoReturn, Self, TypeVar, get_args

from pydantic import (
    BaseModel,
    ConfigDict,
    SerializerFunctionWrapHandler,
    ValidationError,
    model_serializer,
    model_validator,
)

from colddiff.errors import SpecError
from colddiff.spec.documents import SHOWN, shown
from colddiff.spec.overrides import changed

ALTERNATIVE = re.compile(r"[a-z-]+\[.+\]|(constrained|function)-.+")
"""What pydantic calls an alternative of a union, and no field is called."""
LISTS = ("tuple_type", "list_type")
"""pydantic's problem with a single value where several are meant."""
CLOSE = 0.5
"""Least likeness of a name that is suggested, of 1."""
LEAST = 3
"""Letters of a name that a longer one is suggested for, which begins with them."""
USUAL = {"lr": "optimizer.lr", "learning_rate": "optimizer.lr"}
"""Fields by names that other programs have for them."""


def nearest(name: str, names: Iterable[str]) -> str:
    """``; did you mean 'x'?`` if one of ``names`` is close to ``name``, else an empty string.

    Closest is the one name that begins with ``name``, then one that is the first word of it.

    >>> nearest("num_step", ["num_steps", "seed"]), nearest("nope", ["compile"])
    ("; did you mean 'num_steps'?", '')
    >>> nearest("train-cpu", ["train-cpu-deblur-mnist-0a1b2c3d", "train-mine-0a1b2c3d"])
    "; did you mean 'train-cpu-deblur-mnist-0a1b2c3d'?"
    """
    there = list(names)
    usual = USUAL.get(name, "")
    if usual and {usual, usual.partition(".")[0], usual.rpartition(".")[2]} & {*there}:
        return f"; did you mean {usual!r}?"
    longer = [known for known in there if len(name) >= LEAST and known.startswith(name)]
    first = [known for known in there if name.startswith(f"{known}_")]
    close = longer if len(longer) == 1 else first[:1]
    close = close or difflib.get_close_matches(name, there, n=1, cutoff=CLOSE)
    return f"; did you mean {close[0]!r}?" if close else ""


def _meant(key: str, names: Iterable[str]) -> str:
    """What to write instead of an unknown ``key``: ``{dim:8}`` is one word to YAML."""
    name, colon, value = key.partition(":")
    if colon and value and name in names:
        return f"; YAML wants a space after the colon: {name}: {value}"
    return nearest(key, names)


class Later:
    """Marks a field that earlier versions did not have.

    It is written only where it is set, so that records and digests of old jobs stay what they were.
    """


LATER = Later()


class Spec(BaseModel):
    """A frozen description: refuses NaN, inf and unknown keys, suggesting the nearest name."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", validate_default=True, allow_inf_nan=False
    )

    @model_validator(mode="before")
    @classmethod
    def _refuse_unknown_keys(cls, data: Any) -> Any:
        if isinstance(data, Mapping):
            named = {
                text if len(text := str(key)) <= SHOWN else shown(text): value
                for key, value in data.items()
                if key not in cls.model_fields
            }
            if named:
                unknown = list(named)
                fields = ", ".join(cls.model_fields)
                all_of = {str(key): value for key, value in data.items()} | named
                places = {key: cls._place_of(key, all_of) for key in unknown}
                found = [
                    (key, f"no such field{places[key] or _meant(key, cls.model_fields)}")
                    for key in unknown
                ]
                if not all(places.values()):
                    # Once is enough for a person who misspelled several.
                    found[-1] = (unknown[-1], f"{found[-1][1]} (fields: {fields})")
                raise SpecError(found)
            numbers = _numbers(cls)
            # Python counts with truth values, pydantic follows it: `num_steps=true` would be 1.
            wrong = [key for key in numbers & data.keys() if _holds_truth_value(data[key])]
            if wrong:
                raise SpecError(
                    [(key, f"must be a number, got {shown(data[key])}") for key in sorted(wrong)]
                )
        return data

    @classmethod
    def _place_of(cls, key: str, data: Mapping[str, Any]) -> str:
        """What to say of an unknown ``key`` of ``data`` that is a field of another part of it."""
        return ""

    @model_serializer(mode="wrap")
    def _without_later_defaults(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        data: dict[str, Any] = write(self)
        for name, default in _later(type(self)).items():
            if getattr(self, name) == default:
                data.pop(name, None)
        return data

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready data; ``parse(type(spec), spec.to_dict()) == spec``."""
        return self.model_dump(mode="json")

    def with_(self, fields: Mapping[str, Any] | None = None, /, **named: Any) -> Self:
        """A copy with other values of some fields, checked like a new one; this one stays.

        A mapping is merged with the fields it meets, unless it is of another kind; ``fields``
        takes dotted paths too::

            job = recipe.train.with_(num_steps=500, optimizer={"lr": 5e-4})
            job = job.with_({"degradation.num_timesteps": 10})

        Raises SpecError naming the field, and the nearest one if it is unknown.
        """
        given: Any = fields
        if not isinstance(given, Mapping | None):
            what = "takes a mapping of fields, or fields by name"
            raise SpecError(f"{type(self).__name__}.with_ {what}, got {shown(given)}")
        return parse(type(self), changed(self.to_dict(), {**(fields or {}), **named}))

    if not TYPE_CHECKING:  # seen by a type checker, it would allow fields that do not exist

        def __setattr__(self, name: str, value: Any) -> None:
            if name.startswith("_"):  # pydantic's own, and private attributes
                super().__setattr__(name, value)
                return
            self._refuse_change(name)

        def __delattr__(self, name: str) -> None:
            self._refuse_change(name)

    def _refuse_change(self, name: str) -> NoReturn:
        kind = type(self).__name__
        if name not in type(self).model_fields:
            close = nearest(name, type(self).model_fields)
            raise SpecError([(name, f"{kind} has no such field{close}")])
        raise SpecError(
            [(name, f"{kind} is frozen: make a changed copy, {self._changed_by(name)}")]
        )

    def _changed_by(self, name: str) -> str:
        """The expressions that make a copy with another value of a field."""
        return f".with_({name}=...), or of its job, job.with_(FIELD={{{name!r}: ...}})"


S = TypeVar("S", bound=Spec)


@cache
def _later(cls: type[Spec]) -> dict[str, Any]:
    """Fields of ``cls`` that are marked ``LATER``, with their defaults."""
    return {
        name: field.get_default(call_default_factory=True)
        for name, field in cls.model_fields.items()
        if any(isinstance(mark, Later) for mark in field.metadata)
    }


@cache
def _numbers(cls: type[Spec]) -> frozenset[str]:
    """Fields of ``cls`` that take numbers, and no truth value."""
    kinds = {name: _kinds(field.annotation) for name, field in cls.model_fields.items()}
    return frozenset(name for name, of in kinds.items() if of & {int, float} and bool not in of)


def _kinds(annotation: Any) -> set[Any]:
    below = [kind for inner in get_args(annotation) for kind in _kinds(inner)]
    return {annotation, *below} if isinstance(annotation, type) else set(below)


def _holds_truth_value(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return any(_holds_truth_value(item) for item in value)
    return isinstance(value, bool)


def parse(cls: type[S], data: Any, where: str = "") -> S:
    """Validate ``data`` as ``cls``; raises SpecError naming every invalid path below ``where``."""
    if isinstance(data, cls):
        return data
    if not isinstance(data, Mapping):
        raise SpecError([(where, f"expected a mapping of fields, got {shown(data)}")])
    try:
        return cls.model_validate(dict(data))
    except ValidationError as error:
        raise SpecError(_problems(error, where)) from None
    except SpecError as error:
        raise SpecError([(_join(where, path), what) for path, what in error.problems]) from None


def _problems(error: ValidationError, where: str) -> list[tuple[str, str]]:
    problems = []
    for item in _one_of_a_kind(error.errors(include_url=False)):
        path = _join(where, ".".join(str(part) for part in item["loc"]))
        cause = item.get("ctx", {}).get("error")
        if isinstance(cause, SpecError):
            problems += [(_join(path, inner), what) for inner, what in cause.problems]
        elif item["type"] == "missing":
            problems.append((path, "is required"))
        else:
            what = item["msg"].removeprefix("Value error, ")
            if item["type"] in LISTS and isinstance(item["input"], str | int | float):
                what = f"should be a list: [{item['input']}]"
            problems.append((path, f"{what[:1].lower()}{what[1:]}, got {shown(item['input'])}"))
    return problems


def _one_of_a_kind(items: Sequence[Any]) -> list[dict[str, Any]]:
    """pydantic's problems; those of the alternatives of one field are one, by the field's name.

    pydantic names an alternative in the path, such as ``tuple[int, int]``: no field is called so.
    """
    alternatives = {
        item["loc"][: n + 1]: item["loc"][:n]
        for item in items
        for n, part in enumerate(item["loc"])
        if isinstance(part, str) and ALTERNATIVE.fullmatch(part)
    }
    fields = set(alternatives.values())
    found: dict[tuple[Any, ...], dict[str, Any]] = {}
    for item in items:
        heads = (item["loc"][:n] for n in range(len(item["loc"])))
        field = next((head for head in heads if head in fields), None)
        if field is None:
            found[item["loc"], len(found)] = dict(item)
            continue
        said = item["msg"].removeprefix("Input should be ")
        if field in found:
            found[field]["msg"] += f" or {said}"
        else:
            found[field] = {**item, "loc": field, "msg": f"Input should be {said}"}
    return list(found.values())


def _join(*parts: str) -> str:
    # An index, such as [1], follows the field that it is of.
    return ".".join(part for part in parts if part).replace(".[", "[")


def canonical_json(data: Any) -> str:
    """Canonical JSON of ``data``: sorted keys, no spaces, no NaN; equal data gives equal text."""
    return json.dumps(data, sort_keys=True, separators=(",", ":"), allow_nan=False)


def digest(data: Any) -> str:
    """sha256 (hex) of the canonical JSON of ``data``."""
    return hashlib.sha256(canonical_json(data).encode()).hexdigest()


def refuse_fields_without_hook(cls: type[Spec], base: type[Spec], hooks: Mapping[str, str]) -> None:
    """SpecError where ``cls`` has a field of a known meaning and leaves it without that meaning.

    ``hooks`` gives, by name of field, the attribute of ``base`` that ``cls`` has to override. A
    plugin's field that nobody asks for would be a setting without effect.
    """
    for field, hook in hooks.items():
        if field in cls.model_fields and getattr(cls, hook) is getattr(base, hook):
            raise SpecError(
                f"{cls.__name__}: its field {field!r} has no effect until the class overrides "
                f"{base.__name__}.{hook} to say what it means"
            )
