"""The processes of a job import nothing that takes seconds and that they do not use."""

from __future__ import annotations

import subprocess
import sys

WORK = """
import sys
import colddiff.verbs.train.work
from colddiff.data.open import open_source

def heavy():
    names = {"matplotlib", "mlflow", "pandas", "ray", "scipy", "sklearn"}
    return sorted(names & sys.modules.keys())

source = open_source("digits")
source.load(source.entries(None)[0])
print(heavy())
import colddiff.report.page.page
print(heavy())
"""


def test_a_worker_imports_neither_plots_nor_statistics_and_a_page_only_plots() -> None:
    done = subprocess.run([sys.executable, "-c", WORK], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["[]", "['matplotlib']"]
