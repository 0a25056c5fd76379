"""An open table from kind to spec class, filled by discovering the modules of a package."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterator, Mapping
from typing import Any, Generic, TypeVar

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, core_schema

from colddiff.errors import SpecError
from colddiff.spec.base import Spec, nearest, parse

K = TypeVar("K", bound=Spec)
_REGISTRIES: list[Registry[Any]] = []


class Registry(Generic[K], Mapping[str, type[K]]):
    """Kinds of one noun: the modules of ``package`` are imported on first look-up.

    A spec class enters through ``register``, from a module of the package or from a plugin; its
    name is the default of its ``kind`` field.
    """

    def __init__(
        self, noun: str, package: str | None = None, hint: str = "", by_name: bool = False
    ) -> None:
        self.noun = noun
        self.by_name = by_name
        """Whether a kind's name alone stands for it, where its fields have defaults."""
        self._package = package
        self._hint = hint
        self._classes: dict[str, type[K]] = {}
        _REGISTRIES.append(self)

    def register(self, cls: type[K]) -> type[K]:
        """Class decorator; a second class for a kind is refused unless it is the same code."""
        kind = cls.model_fields["kind"].default
        if not isinstance(kind, str):
            name = cls.__name__
            raise SpecError(f'{name}: name its kind, such as kind: Literal["mine"] = "mine"')
        if self._package is not None and not cls.__module__.startswith(f"{self._package}."):
            self._discovered()  # a plugin must not take the name of a built-in kind first
        known = self._classes.get(kind)
        if known is not None and (known.__module__, known.__qualname__) != (
            cls.__module__,
            cls.__qualname__,
        ):
            raise SpecError(
                f"{self.noun} kind {kind!r} of {cls.__module__} is already taken by "
                f"{known.__module__}; give it another name"
            )
        self._classes[kind] = cls
        return cls

    def parse(self, value: Any) -> K:
        """A spec from a mapping with a ``kind`` (or its name); a spec passes through."""
        if isinstance(value, Spec):
            return value  # type: ignore[return-value]  # the field's own type check follows
        if self.by_name and isinstance(value, str):
            value = {"kind": value}
        if not isinstance(value, Mapping):
            raise SpecError(f"expected a mapping with a 'kind', got {value!r}")
        kind = value.get("kind")
        if kind is None:
            raise SpecError([("kind", f"is required; one of {', '.join(self)}{self._hint}")])
        if kind not in self:
            raise SpecError(
                [
                    (
                        "kind",
                        f"no {kind!r}{nearest(str(kind), self)} (one of {', '.join(self)}"
                        f"{self._hint})",
                    )
                ]
            )
        return parse(self[kind], value)

    def registered_by(self, module: str) -> list[str]:
        """Kinds whose spec class was defined in ``module``."""
        return sorted(kind for kind, cls in self._classes.items() if cls.__module__ == module)

    def forget(self, module: str) -> None:
        """Takes the kinds of ``module`` out again."""
        for kind in self.registered_by(module):
            del self._classes[kind]

    def _discovered(self) -> dict[str, type[K]]:
        if self._package is not None:
            package, self._package = importlib.import_module(self._package), None
            for module in pkgutil.iter_modules(package.__path__):
                importlib.import_module(f"{package.__name__}.{module.name}")
        return self._classes

    def __getitem__(self, kind: str) -> type[K]:
        return self._discovered()[kind]

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._discovered()))

    def __len__(self) -> int:
        return len(self._discovered())

    def __contains__(self, kind: object) -> bool:
        return kind in self._discovered()


class KindOf:
    """Annotation of a field that takes any kind of a registry, as ``Registry.parse`` reads it.

    Its JSON schema lists the kinds that are registered when it is asked for.
    """

    def __init__(self, registry: Registry[Any]) -> None:
        self.registry = registry

    def __get_pydantic_core_schema__(
        self, source: Any, handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        return core_schema.no_info_before_validator_function(self.registry.parse, handler(source))

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
        rules = [
            {
                "if": {"properties": {"kind": {"const": kind}}, "required": ["kind"]},
                "then": handler(cls.__pydantic_core_schema__),
            }
            for kind, cls in kinds.items()
        ]
        spelt_out: JsonSchemaValue = {
            "type": "object",
            "properties": {"kind": {"enum": list(kinds)}},
            "required": ["kind"],
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
    """(noun, kind) of everything that ``module`` registered, in any registry."""
    return [
        (registry.noun, kind) for registry in _REGISTRIES for kind in registry.registered_by(module)
    ]


def forget(module: str) -> None:
    """Takes everything that ``module`` registered out again."""
    for registry in _REGISTRIES:
        registry.forget(module)
