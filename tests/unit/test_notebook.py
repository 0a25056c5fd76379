"""The notebook in the docs runs from its first cell to its last, as a person would run it."""

from __future__ import annotations

import ast
import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from matplotlib.figure import Figure

NOTEBOOK = Path(__file__).resolve().parents[2] / "infra" / "docs" / "notebook.ipynb"


def code_cells() -> list[str]:
    cells = json.loads(NOTEBOOK.read_text())["cells"]
    return ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]


def run_cell(source: str, names: dict[str, Any]) -> Any:
    """Runs a cell and returns the value of its last expression, which a notebook would show."""
    tree = ast.parse(source)
    last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
    exec(compile(tree, "cell", "exec"), names)
    if not isinstance(last, ast.Expr):
        return None
    return eval(compile(ast.Expression(last.value), "cell", "eval"), names)


@pytest.fixture
def folder(
    tmp_path: Path, unpacked: Path, monkeypatch: pytest.MonkeyPatch, tracker_database: Path
) -> None:
    """An empty folder to work in, with a tracker that is set up."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLDDIFF_CACHE", str(unpacked))
    monkeypatch.delenv("COLDDIFF_STORAGE", raising=False)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    Path("runs").mkdir()
    shutil.copy(tracker_database, "runs/mlflow.db")


@pytest.mark.usefixtures("folder")
def test_every_cell_runs() -> None:
    names: dict[str, Any] = {}
    shown = [run_cell(source, names) for source in code_cells()]
    assert sum(isinstance(value, Figure) for value in shown) == 4
    assert names["checkpoint"].step == 30
    pivot = next(value for value in shown if hasattr(value, "columns") and "direct" in value)
    assert list(pivot.index) == [15, 30]
    assert shown[-1].keys() >= {"eval/sampled/rmse", "eval/sampled/psnr"}
    jobs = {path.name.rpartition("-")[0] for path in Path("runs/jobs").iterdir()}
    assert jobs == {"train-notebook", "evaluate-notebook"}


@pytest.mark.usefixtures("folder")
def test_the_page_runs_as_it_stands_but_for_its_number_of_steps() -> None:
    page = NOTEBOOK.with_name("python.md").read_text()
    (source,) = re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL)
    assert "num_steps=500" in source
    names: dict[str, Any] = {}
    evaluation = '{"num_images": 32, "batch_size": 32}'
    run_cell(source.replace("num_steps=500", f"num_steps=2, evaluation={evaluation}"), names)
    assert names["checkpoint"].step == 2
    assert names["x_0"].shape == names["x0_hat"].shape == names["x0"].shape == (8, 1, 16, 16)


def test_it_is_kept_without_outputs() -> None:
    cells = json.loads(NOTEBOOK.read_text())["cells"]
    assert all(not cell.get("outputs") and not cell.get("execution_count") for cell in cells)
