"""A deferred module is imported once, when it is used, and is then what everybody holds."""

from __future__ import annotations

import importlib
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest

from colddiff.machine.deferred_import import defer_import, is_imported

Package = Callable[[str], str]
begun: list[str] = []


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Package]:
    """Makes a package of that name whose import is counted; it imports its own `inner`."""
    monkeypatch.syspath_prepend(tmp_path)
    finders, modules = list(sys.meta_path), set(sys.modules)
    begun.clear()

    def make(name: str) -> str:
        folder = tmp_path / name
        folder.mkdir()
        (folder / "__init__.py").write_text(
            textwrap.dedent(f"""
                import builtins
                builtins.{name}_count = getattr(builtins, "{name}_count", 0) + 1
                VALUE = 7
                import {name}.inner
            """)
        )
        (folder / "inner.py").write_text(f"import {name}\nTWICE = 2 * {name}.VALUE\n")
        defer_import(name, lambda: begun.append(name))
        return name

    yield make
    sys.meta_path[:] = finders
    for name in set(sys.modules) - modules:
        del sys.modules[name]


def imports_of(name: str) -> int:
    import builtins

    return int(getattr(builtins, f"{name}_count", 0))


def test_it_is_imported_at_the_first_use_and_replaced_where_it_was_held(package: Package) -> None:
    name = package("late_one")
    user = ModuleType("late_user")
    sys.modules["late_user"] = user
    user.late_one = importlib.import_module(name)  # type: ignore[attr-defined]
    assert importlib.import_module(name) is user.late_one
    assert (imports_of(name), is_imported(name)) == (0, False)
    assert begun == []
    assert user.late_one.VALUE == 7
    assert begun == [name]
    assert (imports_of(name), is_imported(name)) == (1, True)
    assert user.late_one is sys.modules[name]


@pytest.mark.parametrize("statement", ["import {0}.inner", "from {0}.inner import TWICE"])
def test_a_module_in_it_is_imported_once_too(package: Package, statement: str) -> None:
    name = package("late_" + statement.partition(" ")[0])
    found: dict[str, object] = {}
    exec(statement.format(name), found)
    held = sys.modules[f"{name}.inner"]
    assert sys.modules[name].inner is held
    assert held.__spec__ is not None
    assert held.__spec__.name == f"{name}.inner"
    assert imports_of(name) == 1


def test_threads_that_use_it_at_once_all_get_it(package: Package) -> None:
    name = package("late_threads")
    deferred, seen = importlib.import_module(name), []
    threads = [threading.Thread(target=lambda: seen.append(deferred.VALUE)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen == [7] * 8
    assert begun == [name]
    assert imports_of(name) == 1


def test_an_import_that_fails_says_so_at_each_use(package: Package, tmp_path: Path) -> None:
    name = package("late_broken")
    (tmp_path / name / "__init__.py").write_text("raise ImportError('no library')\n")
    deferred = importlib.import_module(name)
    for _ in range(2):
        with pytest.raises(ImportError, match="no library"):
            _ = deferred.VALUE


def test_what_is_imported_or_not_installed_stays_as_it_is() -> None:
    before = sys.modules["json"] = importlib.import_module("json")
    defer_import("json")
    defer_import("no_such_module_anywhere")
    assert sys.modules["json"] is before
    assert is_imported("json")
    assert not is_imported("no_such_module_anywhere")
