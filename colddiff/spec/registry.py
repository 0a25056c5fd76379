"""Open catalogues by name, filled by discovering the modules of a package."""

from __future__ import annotations

import importlib
import json
import pkgutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from typing import Any, Generic, TypeVar

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, core_schema

from colddiff.errors import SpecError
from colddiff.spec.base import Spec, nearest, parse
from colddiff.spec.documents import shown

V = TypeVar("V")
K = TypeVar("K", bound=Spec)
MOST_EXAMPLES = 2
LONGEST_EXAMPLE = 100
"""Characters of fields that an error repeats."""
_CATALOGUES: list[Catalogue[Any]] = []


class Catalogue(Generic[V], Mapping[str, V]):
    """The entries of one noun, by name; the modules of ``package`` are imported on first lookup.

    A leaf has a class decorator ``register``, for the modules of the package and for plugins.
    """

    def __init__(
        self, noun: str, package: str | None = None, hint: str = "", by_name: bool = False
    ) -> None:
        self.noun = noun
        self.by_name = by_name
        """Whether a kind's name alone stands for it, where its fields have defaults."""
        self._package = package
        self._hint = hint
        self._entries: dict[str, tuple[type, V]] = {}
        """By name: the class it comes from, and what it is."""
        _CATALOGUES.append(self)

    def _add(self, name: str, value: V, cls: type, what: str) -> None:
        """Add ``value`` of ``cls``; SpecError if the name is taken by other code."""
        known = self._beside(cls).get(name)
        if known is not None and _code(known[0]) != _code(cls):
            raise SpecError(
                f"{what} {name!r} of {cls.__module__} is already defined by {known[0].__module__}; "
                "use another name"
            )
        self._entries[name] = (cls, value)

    def _beside(self, cls: type) -> Mapping[str, tuple[type, V]]:
        """The entries so far; built-in ones first, so that no plugin can take their names."""
        if self._package is not None and not cls.__module__.startswith(f"{self._package}."):
            self._discovered()
        return self._entries

    def unknown(self, name: object) -> str:
        """Error text for an unknown name: the nearest names, and all of them."""
        names = list(self)
        return (
            f"no {shown(name)}{nearest(str(name), names)} (one of {', '.join(names)}{self._hint})"
        )

    def registered_by(self, module: str) -> list[str]:
        """Names whose class was defined in ``module``."""
        return sorted(name for name, (cls, _) in self._entries.items() if cls.__module__ == module)

    def forget(self, module: str) -> None:
        """Remove the entries defined in ``module``."""
        for name in self.registered_by(module):
            del self._entries[name]

    def _discovered(self) -> dict[str, tuple[type, V]]:
        if self._package is not None:
            package, self._package = importlib.import_module(self._package), None
            for module in pkgutil.iter_modules(package.__path__):
                importlib.import_module(f"{package.__name__}.{module.name}")
        return self._entries

    def __getitem__(self, name: str) -> V:
        return self._discovered()[name][1]

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._discovered()))

    def __len__(self) -> int:
        return len(self._discovered())

    def __contains__(self, name: object) -> bool:
        return name in self._discovered()


class Registry(Catalogue[type[K]], Generic[K]):
    """Kinds of one noun, each a spec class; its name is the default of its ``kind`` field."""

    def register(self, cls: type[K]) -> type[K]:
        """Class decorator; a second class for a kind is refused unless it is the same code."""
        kind = cls.model_fields["kind"].default
        if not isinstance(kind, str):
            name = cls.__name__
            raise SpecError(f'{name}: define its kind, such as kind: Literal["mine"] = "mine"')
        self._add(kind, cls, cls, f"{self.noun} kind")
        return cls

    def parse(self, value: Any) -> K:
        """A spec from a mapping with a ``kind`` (or its name); a spec passes through."""
        if isinstance(value, Spec):
            return value  # type: ignore[return-value]  # the field's own type check follows
        if self.by_name and isinstance(value, str):
            value = {"kind": value}
        if not isinstance(value, Mapping):
            example = self._example(value)
            raise SpecError(f"expected a mapping with a 'kind', got {shown(value)}{example}")
        kind = value.get("kind")
        if kind is None:
            raise SpecError([("kind", self._kindless(value))])
        if not isinstance(kind, str) or kind not in self:
            raise SpecError([("kind", self.unknown(kind))])
        self._refuse_fields_of_another(kind, value)
        return parse(self[kind], value)

    def _refuse_fields_of_another(self, kind: str, value: Mapping[str, Any]) -> None:
        """SpecError where all unknown fields are those of one other kind, as its leftovers are.

        They are not dropped: who sets a kind alone may not know that the other fields, such as a
        schedule, stay what they were for the kind before.
        """
        own = self[kind].model_fields
        foreign = [str(name) for name in value if name not in own]
        others = self.kinds_with(foreign) if foreign else []
        missing = [name for name in own if name not in value]
        if not others or any(nearest(name, missing) for name in foreign):
            return  # the second is a name misspelt
        kept = {name: inner for name, inner in value.items() if name in own and name != "kind"}
        needed = [name for name, of in own.items() if of.is_required() and name not in kept]
        fields = [f"{name}: {_as_yaml(inner)}" for name, inner in kept.items()]
        whole = ", ".join([f"kind: {kind}", *fields, *(f"{name}: ..." for name in needed)])
        found = [(name, f"no such field of {kind}") for name in foreign]
        found[-1] = (
            foreign[-1],
            f"{found[-1][1]}, but of {' and '.join(others[:MOST_EXAMPLES])}: setting `kind` alone "
            f"keeps the other fields; replace the whole by '{{{whole}}}'",
        )
        raise SpecError(found)

    def _example(self, value: Any) -> str:
        """``; write {kind: constant, value: 5}``: the kind for which one value is enough."""
        for kind, cls in self.items():
            needed = [name for name, field in cls.model_fields.items() if field.is_required()]
            if len(needed) == 1 and not isinstance(value, str | list | tuple | None):
                with suppress(SpecError):
                    parse(cls, {"kind": kind, needed[0]: value})
                    return f"; write {{kind: {kind}, {needed[0]}: {_as_yaml(value)}}}"
        return ""

    def kinds_with(self, fields: Iterable[str]) -> list[str]:
        """The kinds that have all of ``fields``."""
        wanted = {field for field in fields if field != "kind"}
        return [kind for kind in self if wanted <= set(self[kind].model_fields)]

    def _kindless(self, value: Mapping[str, Any]) -> str:
        """Error text for fields without a kind: the kinds, and the line to write."""
        fitting = self.kinds_with(value) if value else []
        required = f"is required; one of {', '.join(self)}{self._hint}"
        if not fitting or len(str(value)) > LONGEST_EXAMPLE:
            return required
        given = ", ".join(f"{name}: {_as_yaml(inner)}" for name, inner in value.items())
        named = fitting if len(fitting) <= MOST_EXAMPLES else ["KIND"]
        lines = " or ".join(f"{{kind: {kind}, {given}}}" for kind in named)
        return f"{required}: write {lines}"


class KindOf:
    """Annotation of a field that takes any kind of a registry, as ``Registry.parse`` reads it.

    ``default`` is the kind of a mapping that names none, unless its fields are those of other
    kinds. Its JSON schema lists the kinds that are registered when it is asked for.
    """

    def __init__(self, registry: Registry[Any], default: str | None = None) -> None:
        self.registry = registry
        self.default = default

    def __get_pydantic_core_schema__(
        self, source: Any, handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        return core_schema.no_info_before_validator_function(self._read, handler(source))

    def _read(self, value: Any) -> Any:
        if self.default is not None and isinstance(value, Mapping) and value.get("kind") is None:
            fitting = self.registry.kinds_with(value)
            if self.default in fitting or not fitting:
                value = {**value, "kind": self.default}
        return self.registry.parse(value)

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        base = handler(schema)
        definition = handler.resolve_ref_schema(base)
        definition.clear()
        definition.update(self._choice(handler))
        return base

    def _choice(self, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        kinds = dict(self.registry)
        # One rule for each kind, and not `oneOf`: an editor then names the field that is wrong.
        named = {kind: [] if kind == self.default else ["kind"] for kind in kinds}
        rules = [
            {
                "if": {"properties": {"kind": {"const": kind}}, "required": named[kind]},
                "then": handler(cls.__pydantic_core_schema__),
            }
            for kind, cls in kinds.items()
        ]
        spelt_out: JsonSchemaValue = {
            "type": "object",
            "properties": {"kind": {"enum": list(kinds)}},
            "required": [] if self.default is not None else ["kind"],
            "allOf": rules,
        }
        if not self.registry.by_name:
            return spelt_out
        complete = [
            kind
            for kind, cls in kinds.items()
            if not any(field.is_required() for field in cls.model_fields.values())
        ]
        return {"anyOf": [{"enum": complete}, spelt_out]}


def registered_by(module: str) -> list[tuple[str, str]]:
    """(noun, name) of everything defined in ``module``, over all catalogues."""
    return [
        (catalogue.noun, name)
        for catalogue in _CATALOGUES
        for name in catalogue.registered_by(module)
    ]


def forget(module: str) -> None:
    """Remove everything defined in ``module`` from all catalogues."""
    for catalogue in _CATALOGUES:
        catalogue.forget(module)


def _as_yaml(value: Any) -> str:
    """A value of a job file as it may be written on one line; JSON is YAML."""
    return value if isinstance(value, str) else json.dumps(value, default=str)


def _code(cls: type) -> tuple[str, str]:
    return cls.__module__, cls.__qualname__
