"""The processes of a job import nothing that takes seconds and that they do not use."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from colddiff.machine.garbage import OBJECTS
from colddiff.stores.local_store import LocalStore
from colddiff.tracking.spool import decode, undelivered
from tests.unit.search.tiny_search import tiny_search
from tests.unit.test_run import TINY

WORK = """
import json, sys
import torch
from colddiff.data.open import open_source
from colddiff.jobs.resolve import resolve
from colddiff.jobs.tracking_run import join_tracker
from colddiff.spec import parse
from colddiff.verbs.train.job import TrainJob
from colddiff.verbs.train.local_context import LocalContext
from colddiff.verbs.train.work import train_rank

def heavy():
    names = {"matplotlib", "mlflow", "pandas", "ray", "scipy", "sklearn"}
    return sorted(names & sys.modules.keys())

source = open_source("digits")
source.load(source.entries(None)[0])
resolved = resolve(parse(TrainJob, json.loads(sys.argv[1])), "tiny")
tracker = join_tracker(resolved)
train_rank(resolved, LocalContext(torch.device("cpu")), 1, tracker)
tracker.close()
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


def test_a_worker_imports_neither_plots_nor_the_tracker_and_a_page_only_plots(
    tmp_path: Path, packed: dict[str, str]
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", WORK, json.dumps({**TINY, **packed, "log_every": 1})],
        env={**os.environ, "COLDDIFF_STORAGE": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.splitlines() == ["[]", "['matplotlib']"]
    # What it logged waits for the job's driver.
    store = LocalStore(tmp_path)
    (job_id,) = store.folders("jobs/")
    spooled = [decode(key, store.get(key))[1] for key in undelivered(store, job_id)]
    steps = [e.step for entries in spooled for e in entries if e.key == "train/loss_l1"]
    assert steps == [1, 2, 3, 4]


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
