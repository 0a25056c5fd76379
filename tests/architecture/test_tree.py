"""The shape of the tree: sizes, names and openings that keep it readable."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SOURCES = sorted(
    path for folder in ("colddiff", "tests", "infra") for path in (ROOT / folder).rglob("*.py")
)
PACKAGE = ROOT / "colddiff"
PRODUCT = [path for path in SOURCES if PACKAGE in path.parents]
FOLDERS = sorted({path.parent for path in PRODUCT})
MOST_LINES = {"file": 400, "function": 60}
MOST_FILES = 20
GONE = ("adapters", "connect", "engine", "jobspec", "launch", "resolve", "run")
NAMELESS = {"utils.py", "helpers.py", "common.py", "misc.py", "core.py"}


def in_all(paths: list[Path], problems: Callable[[Path], Iterator[str]]) -> list[str]:
    """What is wrong, each with its file: a test for each file and rule would be two thousand."""
    return [f"{path.relative_to(ROOT)}: {what}" for path in paths for what in problems(path)]


def not_one_thing(path: Path) -> Iterator[str]:
    text = path.read_text()
    if path.name in NAMELESS:
        yield "is no name"
    if len(text.splitlines()) > MOST_LINES["file"]:
        yield f"{len(text.splitlines())} lines"
    if text.strip():
        opening = ast.get_docstring(parsed(path))
        if not opening or not (opening[0].isupper() or opening[0] in "`'"):
            yield "does not begin with a sentence"


def pickles(path: Path) -> Iterator[str]:
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = {alias.name for alias in node.names} | {getattr(node, "module", None)}
            if names & {"pickle", "cloudpickle", "dill", "joblib", "shelve"}:
                yield f"line {node.lineno} imports it"
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "torch.load":
            arguments = {k.arg: ast.unparse(k.value) for k in node.keywords}
            if arguments.get("weights_only") != "True":
                yield f"line {node.lineno} loads it"


def long_functions(path: Path) -> Iterator[str]:
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert node.end_lineno is not None
            length = node.end_lineno - node.lineno + 1
            if length > MOST_LINES["function"]:
                yield f"{node.name} has {length} lines"


def crowded(folder: Path) -> Iterator[str]:
    if len(list(folder.glob("*.py"))) > MOST_FILES:
        yield f"more than {MOST_FILES} files"
    if not (folder / "__init__.py").is_file():
        yield "no __init__.py"


@cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


def test_a_file_is_one_thing_with_a_name_and_an_opening_sentence() -> None:
    assert in_all(SOURCES, not_one_thing) == []


def test_no_pickle_is_ever_loaded() -> None:
    assert in_all(PRODUCT, pickles) == []


def test_a_function_fits_on_a_screen() -> None:
    assert in_all(PRODUCT, long_functions) == []


def test_a_folder_is_seen_at_a_glance() -> None:
    assert in_all(FOLDERS, crowded) == []


@pytest.mark.parametrize(
    ("problems", "text"),
    [
        (not_one_thing, "x = 1\n"),
        (not_one_thing, '"""small."""\n'),
        (not_one_thing, '"""Long."""\n' + "x = 1\n" * 400),
        (pickles, "import io, pickle\n"),
        (pickles, "def f():\n    from joblib import load\n"),
        (pickles, "torch.load(path)\n"),
        (pickles, "torch.load(path, weights_only=False)\n"),
        (long_functions, "def f():\n" + "    x = 1\n" * 60),
    ],
)
def test_each_is_found(
    problems: Callable[[Path], Iterator[str]], text: str, tmp_path: Path
) -> None:
    path = tmp_path / "file.py"
    path.write_text(text)
    assert len(list(problems(path))) == 1


def test_rooms_by_permission_stay_gone() -> None:
    assert [name for name in GONE if (PACKAGE / name).exists()] == []


def test_the_catalogue_is_data_and_not_a_package() -> None:
    assert list((ROOT / "jobs").rglob("*.py")) == []
