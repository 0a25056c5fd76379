"""A SpecError is a ValueError: who expects one of Python's must not swallow one of ours."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

SOURCES = sorted((Path(__file__).resolve().parents[2] / "colddiff").rglob("*.py"))
WITHOUT_SPEC_ERRORS = (
    "colddiff.errors",
    "colddiff.spec.documents",
    "colddiff.spec.yaml_documents",
    "colddiff.machine.files",
)
OURS = {"SpecError", "ColddiffError", "Exception", "BaseException"}


def names(node: ast.expr | None) -> set[str]:
    """The names of the exceptions that a handler catches."""
    if node is None:
        return {"BaseException"}
    parts = node.elts if isinstance(node, ast.Tuple) else [node]
    return {name_of(part) for part in parts}


def name_of(node: ast.expr) -> str:
    return node.attr if isinstance(node, ast.Attribute) else getattr(node, "id", "")


def imported_from_us(tree: ast.Module) -> set[str]:
    """What a module imports from colddiff: a call of it may raise SpecError."""
    return {
        item.asname or item.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom)
        and (node.module or "").startswith("colddiff")
        and node.module not in WITHOUT_SPEC_ERRORS
        for item in node.names
    }


def calls(body: list[ast.stmt]) -> Iterator[str]:
    for statement in body:
        for node in ast.walk(statement):
            if isinstance(node, ast.Call):
                yield name_of(node.func)


def swallowed(name: str, text: str) -> Iterator[str]:
    """Where a module ``name`` of this text catches ValueError of what may raise SpecError."""
    tree = ast.parse(text)
    own = imported_from_us(tree)
    for node in ast.walk(tree):
        if not isinstance(node, ast.Try):
            continue
        for handler in node.handlers:
            caught = names(handler.type)
            if caught & OURS:
                break
            if "ValueError" in caught:
                of = own & set(calls(node.body))
                if of:
                    yield f"{name}:{handler.lineno}: catch SpecError before ValueError of {of}"


def test_nobody_swallows_a_spec_error_as_a_value_error() -> None:
    found = [what for path in SOURCES for what in swallowed(path.name, path.read_text())]
    assert found == []


def test_one_that_is_swallowed_is_found() -> None:
    begun = "from colddiff.spec import parse\ntry:\n    parse(x)\n"
    assert len(list(swallowed("a.py", f"{begun}except ValueError:\n    pass\n"))) == 1
    ours = f"{begun}except SpecError:\n    raise\nexcept ValueError:\n    pass\n"
    assert list(swallowed("a.py", ours)) == []
