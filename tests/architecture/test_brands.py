"""Who may name a third-party service or library: the files called after it, and few others."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[2] / "colddiff"
FILES = sorted(path.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("*.py"))

MAY_IMPORT = {
    "PIL": ("data/pil_*.py", "data/decoding/pil_*.py", "report/*.py"),
    "boto3": ("stores/s3_*.py",),
    "botocore": ("stores/s3_*.py",),
    "cleanfid": ("features/cleanfid_*.py",),
    "matplotlib": ("report/*.py",),
    "mlflow": ("tracking/mlflow_*.py",),
    "nibabel": ("data/stacks/nibabel_*.py",),
    "optuna": ("verbs/*/points/optuna_*.py",),
    "psutil": ("tracking/system_metrics.py", "machine/memory.py", "machine/processes.py"),
    "pydicom": ("data/stacks/pydicom_*.py",),
    "ray": ("cluster/*.py", "verbs/*/on_ray.py", "verbs/*/ray_*.py"),
    "sklearn": ("data/sources/sklearn_*.py", "terminals/sklearn_*.py"),
    "tifffile": ("data/stacks/tifffile_*.py",),
    "tqdm": ("machine/tqdm_bar.py",),
    "typer": ("cli/*.py",),
    "webdataset": ("data/webdataset_*.py", "data/sources/webdataset_*.py"),
}
"""By brand, the files below ``colddiff/`` that may import it."""


def imported(source: str) -> Iterator[tuple[str, int]]:
    """Top-level names of all modules that a source imports, at any depth, with the line."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names = [str(node.module)]
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module"):
            names = [str(a.value) for a in node.args if isinstance(a, ast.Constant)]
        else:
            continue
        yield from ((name.partition(".")[0], node.lineno) for name in names)


def strangers(file: str, source: str) -> list[str]:
    """What ``source`` imports and may not, were it the file ``file`` below ``colddiff/``."""
    return [
        f"{file}:{line} imports {name}"
        for name, line in imported(source)
        if name in MAY_IMPORT
        and not any(fnmatchcase(file, pattern) for pattern in MAY_IMPORT[name])
    ]


def test_a_brand_is_imported_only_in_files_named_after_it() -> None:
    found = [what for file in FILES for what in strangers(file, (PACKAGE / file).read_text())]
    assert found == []


@pytest.mark.parametrize(
    ("file", "source"),
    [
        ("verbs/train/work.py", "import ray"),
        ("data/open.py", "def f():\n    from sklearn.datasets import load_digits"),
        ("stores/open.py", "if TYPE_CHECKING:\n    import botocore.exceptions as e"),
        ("jobs/local.py", "import importlib\nimportlib.import_module('mlflow.entities')"),
    ],
)
def test_every_way_to_import_counts(file: str, source: str) -> None:
    assert len(strangers(file, source)) == 1


@pytest.mark.parametrize(
    ("file", "source"),
    [
        ("verbs/train/on_ray.py", "import ray.train"),
        ("stores/s3_store.py", "from botocore.config import Config"),
        ("features/networks.py", "from colddiff.features import cleanfid_inception"),
    ],
)
def test_files_named_after_a_brand_may_import_it(file: str, source: str) -> None:
    assert strangers(file, source) == []
