"""An open registry of spec classes by kind, filled by discovering the modules of a package."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterator, Mapping
from typing import Any, Generic, TypeVar

from colddiff.errors import SpecError
from colddiff.spec.base import Spec, nearest, parse

K = TypeVar("K", bound=Spec)
_REGISTRIES: list[Registry[Any]] = []


class Registry(Generic[K], Mapping[str, type[K]]):
    """The kinds of one noun; the modules of ``package`` are imported on first lookup.

    A spec class is added with ``register``, from a module of the package or from a plugin; its
    name is the default of its ``kind`` field.
    """

    def __init__(self, noun: str, package: str | None = None, hint: str = "") -> None:
        self.noun = noun
        self._package = package
        self._hint = hint
        self._classes: dict[str, type[K]] = {}
        _REGISTRIES.append(self)

    def register(self, cls: type[K]) -> type[K]:
        """Class decorator; a second class for a kind is refused unless it is the same code."""
        kind = cls.model_fields["kind"].default
        if not isinstance(kind, str):
            name = cls.__name__
            raise SpecError(f'{name}: define its kind, such as kind: Literal["mine"] = "mine"')
        if self._package is not None and not cls.__module__.startswith(f"{self._package}."):
            self._discovered()  # built-in kinds come first: a plugin must not take their names
        known = self._classes.get(kind)
        if known is not None and (known.__module__, known.__qualname__) != (
            cls.__module__,
            cls.__qualname__,
        ):
            raise SpecError(
                f"{self.noun} kind {kind!r} of {cls.__module__} is already defined by "
                f"{known.__module__}; use another name"
            )
        self._classes[kind] = cls
        return cls

    def parse(self, value: Any) -> K:
        """Build a spec from a mapping with a ``kind``; a spec is returned as is."""
        if isinstance(value, Spec):
            return value  # type: ignore[return-value]  # the field's own type check follows
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
        """Remove the kinds defined in ``module``."""
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


def registered_by(module: str) -> list[tuple[str, str]]:
    """(noun, kind) of everything defined in ``module``, over all registries."""
    return [
        (registry.noun, kind) for registry in _REGISTRIES for kind in registry.registered_by(module)
    ]


def forget(module: str) -> None:
    """Remove everything defined in ``module`` from all registries."""
    for registry in _REGISTRIES:
        registry.forget(module)
