"""The shape of the tree: sizes, names and openings that keep it readable."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SOURCES = sorted(
    path
    for folder in ("colddiff", "jobs", "tests", "infra")
    for path in (ROOT / folder).rglob("*.py")
)
NAMELESS = {"utils.py", "helpers.py", "common.py", "misc.py", "core.py"}


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_file_is_one_thing_with_a_name_and_an_opening_sentence(path: Path) -> None:
    text = path.read_text()
    assert path.name not in NAMELESS
    assert len(text.splitlines()) <= 400
    if text.strip():
        opening = ast.get_docstring(ast.parse(text))
        assert opening
        assert opening[0].isupper() or opening[0] in "`'"


@pytest.mark.parametrize(
    "path",
    [p for p in SOURCES if p.parts[len(ROOT.parts)] in ("colddiff", "jobs")],
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
