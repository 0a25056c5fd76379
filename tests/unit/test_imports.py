"""The processes of a job import nothing that takes seconds and that they do not use."""

from __future__ import annotations

import json
import subprocess
import sys

from colddiff.machine.garbage import OBJECTS
from tests.unit.search.tiny_search import tiny_search

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
SUBMISSION = """
import json, sys
from colddiff.jobs.verb import VERBS
from colddiff.spec import parse
from colddiff.jobs.recipes import load_recipe
from colddiff.verbs.train.estimates.cpu_days import cpu_advice

print(cpu_advice(load_recipe("quickstart").job("train"), lambda: None))
search = parse(VERBS["search"].spec(), json.loads(sys.argv[1]))
print(VERBS["search"].advice(search, lambda: None))
print("torch" in sys.modules, "torch._dynamo" in sys.modules)
"""


def test_a_worker_imports_neither_plots_nor_statistics_and_a_page_only_plots() -> None:
    done = subprocess.run([sys.executable, "-c", WORK], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["[]", "['matplotlib']"]


def test_submitting_a_small_job_does_not_import_the_compiler_of_torch() -> None:
    script = [sys.executable, "-c", SUBMISSION, json.dumps(tiny_search())]
    done = subprocess.run(script, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["[]", "[]", "True False"]


def test_the_command_line_looks_for_garbage_seldom() -> None:
    """By default a third of an import of torch is spent on it."""
    code = "import gc, runpy, sys; sys.argv[1:] = ['--version']\n"
    code += "try: runpy.run_module('colddiff.cli.main', run_name='__main__')\n"
    code += "finally: print(gc.get_threshold()[0])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == str(OBJECTS)
