"""The shape of the tree: sizes, names and openings that keep it readable."""

from __future__ import annotations

import ast
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


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_file_is_one_thing_with_a_name_and_an_opening_sentence(path: Path) -> None:
    text = path.read_text()
    assert path.name not in NAMELESS
    assert len(text.splitlines()) <= MOST_LINES["file"]
    if text.strip():
        opening = ast.get_docstring(ast.parse(text))
        assert opening
        assert opening[0].isupper() or opening[0] in "`'"


@pytest.mark.parametrize(
    "path",
    PRODUCT,
    ids=lambda path: str(path.relative_to(ROOT)),
)
def test_no_pickle_is_ever_loaded(path: Path) -> None:
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = {alias.name for alias in node.names} | {getattr(node, "module", None)}
            assert not names & {"pickle", "cloudpickle", "dill", "joblib", "shelve"}
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "torch.load":
            arguments = {k.arg: ast.unparse(k.value) for k in node.keywords}
            assert arguments.get("weights_only") == "True"


@pytest.mark.parametrize("path", PRODUCT, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_function_fits_on_a_screen(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert node.end_lineno is not None
            length = node.end_lineno - node.lineno + 1
            assert length <= MOST_LINES["function"], f"{node.name} has {length} lines"


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_folder_is_seen_at_a_glance(folder: Path) -> None:
    assert len(list(folder.glob("*.py"))) <= MOST_FILES
    assert (folder / "__init__.py").is_file()


def test_rooms_by_permission_stay_gone() -> None:
    assert [name for name in GONE if (PACKAGE / name).exists()] == []


def test_the_catalogue_is_data_and_not_a_package() -> None:
    assert list((ROOT / "jobs").rglob("*.py")) == []
