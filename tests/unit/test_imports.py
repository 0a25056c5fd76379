"""A training's processes import nothing that takes seconds and that they do not use."""

from __future__ import annotations

import subprocess
import sys

WORK = """
import sys
import colddiff.verbs.train.work
from colddiff.data.open import open_source

source = open_source("digits")
source.load(source.entries(None)[0])
heavy = {"matplotlib", "mlflow", "pandas", "ray", "scipy", "sklearn"}
print(sorted(heavy & sys.modules.keys()))
"""


def test_a_worker_imports_neither_plots_nor_statistics() -> None:
    done = subprocess.run([sys.executable, "-c", WORK], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
