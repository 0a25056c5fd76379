"""A module that is imported when something of it is first used."""

from __future__ import annotations

import importlib
import sys
import threading
from collections.abc import Callable, Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import find_spec, module_from_spec
from types import ModuleType
from typing import Any

BEGINS = "_colddiff_begins"
_TAKING_BACK = threading.Lock()


def defer_import(name: str, begins: Callable[[], None] = lambda: None) -> None:
    """``import name`` costs nothing from now on, until something of the module is used.

    That is an attribute of it, or a module in it; ``begins`` is called before it is imported then.
    Nothing changes where it is imported already, or not installed.

    >>> defer_import("colorsys")
    >>> import colorsys
    >>> is_imported("colorsys")
    False
    >>> colorsys.rgb_to_hls(0.0, 0.0, 0.0)
    (0.0, 0.0, 0.0)
    >>> is_imported("colorsys")
    True
    """
    spec = None if name in sys.modules else find_spec(name)
    if spec is None:
        return
    module = module_from_spec(spec)
    module.__class__ = _Deferred
    module.__dict__[BEGINS] = begins
    sys.modules[name] = module
    sys.meta_path.insert(0, _Submodules(name))


def is_imported(name: str) -> bool:
    """Whether the module is imported, and not only deferred."""
    return not isinstance(sys.modules.get(name), _Deferred | None)


class _Deferred(ModuleType):
    """Stands for a module in `sys.modules` and wherever it was imported, until it is used.

    Not `importlib.util.LazyLoader`: in Python 3.11 that imports when the module is merely imported
    a second time, and shows it half imported to other threads.
    """

    def __getattr__(self, attribute: str) -> Any:
        return getattr(_imported(self), attribute)


class _Submodules(MetaPathFinder):
    """Imports what was deferred before any module in it, as Python does."""

    def __init__(self, name: str) -> None:
        self._name = name

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        deferred = sys.modules.get(self._name)
        if not fullname.startswith(f"{self._name}.") or not isinstance(deferred, _Deferred):
            return None
        _imported(deferred)
        # Python does not look again whether that has imported this one too, and would do it twice.
        there = sys.modules.get(fullname)
        return None if there is None else ModuleSpec(fullname, _Present(there))


class _Present(Loader):
    """Loads a module that is there, without a change to it."""

    def __init__(self, module: ModuleType) -> None:
        self._module, self._spec = module, module.__spec__
        module.__spec__ = None  # Python would take this one, and load the module once more

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return self._module

    def exec_module(self, module: ModuleType) -> None:
        module.__spec__ = self._spec


def _imported(deferred: _Deferred) -> ModuleType:
    """What ``deferred`` stands for, now in its place everywhere."""
    name = deferred.__name__
    with _TAKING_BACK:
        if sys.modules.get(name) is deferred:
            del sys.modules[name]
            deferred.__dict__[BEGINS]()
    # As usual, also where several threads come here at once.
    module = importlib.import_module(name)
    for other in list(sys.modules.values()):
        names = getattr(other, "__dict__", {})
        for own in [own for own, value in list(names.items()) if value is deferred]:
            names[own] = module
    return module
