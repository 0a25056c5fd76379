"""The processes of a job import nothing that takes seconds and that they do not use."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import colddiff
from colddiff.cluster.forking import server
from colddiff.jobs.verb import VERBS
from colddiff.machine.garbage import OBJECTS
from colddiff.spec import parse
from colddiff.stores.local_store import LocalStore
from colddiff.tracking.spool import decode, undelivered
from colddiff.verbs.train.job import TrainJob
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
print(heavy(), "torch._dynamo" in sys.modules)
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
# Where the schedules of a search end is computed, also where the search is done.
FINISHED = ("train", "evaluate", "generate", "study")
WITHOUT_TORCH = (
    *(["list"], ["list", "--json"], ["recipes"], ["recipes", "quickstart"], ["degradations"]),
    *(["degradations", "blur"], ["restorers"], ["restorers", "ddpm_unet"], ["samplers"]),
    *(["terminals"], ["features"], *(["fields", verb] for verb in VERBS)),
    *(["gc", "--dry-run"], ["status", "{train}"]),
    *(["submit", verb, "{file}", "--local"] for verb in FINISHED),
)
TORCH_AFTER = """
import json, sys
from colddiff.cli.main import main
from colddiff.machine.deferred_import import is_imported

found = []
for words in json.loads(sys.argv[1]):
    sys.argv[1:] = words
    try:
        main()
    except SystemExit as ended:
        found.append([words, ended.code or 0, is_imported("torch")])
print(json.dumps(found))
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
    assert done.stdout.splitlines() == ["[] True", "['matplotlib']"]
    assert "torch._dynamo" in server.MODULES  # a worker that is forked need not import it
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


def test_commands_that_compute_nothing_do_without_torch(
    storage: Path, packed: dict[str, str], tmp_path: Path
) -> None:
    """Among them the submission of a finished job of each verb, which says what came of it."""
    quiet = {"tracking": {"system_every_s": None, "images": False}}
    train = {**TINY, "data": packed["data"], "test_data": None, "num_steps": 1, **quiet}
    first = colddiff.train(parse(TrainJob, train), "file")
    few = {"checkpoint": first["id"], **quiet}
    jobs: dict[str, Any] = {
        "train": train,
        "evaluate": {**few, "test_data": packed["test_data"], "num_images": 8, "severities": 1},
        "generate": {**few, "num_samples": 2},
        "study": {"jobs": [{"train": train}], **quiet},
    }
    for verb in FINISHED[1:]:
        getattr(colddiff, verb)(jobs[verb], "file")
    (tmp_path / "file.yaml").write_text(json.dumps(jobs))
    named = {"train": first["id"], "file": tmp_path / "file.yaml"}
    words = [[word.format(**named) for word in command] for command in WITHOUT_TORCH]
    done = subprocess.run(
        [sys.executable, "-c", TORCH_AFTER, json.dumps(words)],
        capture_output=True,
        text=True,
        check=True,
    )
    found = json.loads(done.stdout.splitlines()[-1])
    assert found == [[command, 0, False] for command in words], done.stderr
    assert done.stderr.count(" is done (") == len(FINISHED)


def test_the_command_line_looks_for_garbage_seldom() -> None:
    """By default a third of an import of torch is spent on it."""
    code = "import gc, runpy, sys; sys.argv[1:] = ['--version']\n"
    code += "try: runpy.run_module('colddiff.cli.main', run_name='__main__')\n"
    code += "finally: print(gc.get_threshold()[0])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == str(OBJECTS)
