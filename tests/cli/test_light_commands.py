"""Commands on submitted jobs answer from STORAGE: what takes long to import is left alone."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from colddiff.cli.main import app, command
from colddiff.jobs.folder import JobFolder
from colddiff.jobs.status import Status
from colddiff.stores.open import open_store

HEAVY = (
    "torch",
    "numpy",
    "ray",
    "mlflow",
    "pandas",
    "sklearn",
    "matplotlib",
    "PIL",
    "boto3",
    "yaml",
)
CLASSES = ("colddiff.jobs.job", "colddiff.jobs.resolve", "colddiff.spec.base")
"""Ours that describe jobs."""
COMMANDS = (
    ["list"],
    ["list", "--state", "done", "--sort", "best", "--json"],
    ["status", "train-a-00000001"],
    ["status", "train-a-00000001", "--json"],
    ["logs", "train-a-00000001"],
    ["stop", "train-a-00000001"],
    ["wait", "train-a-00000001"],
    ["wait", "train-b-00000002", "--json"],
    ["delete", "--yes", "train-b-00000002"],
    ["delete", "--yes", "generate-c-00000003"],
)
SCRIPT = """
import contextlib, json, io, sys
from colddiff.cli.main import app

found = []
for words in json.loads(sys.argv[1]):
    code = 0
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        try:
            app(words, prog_name="colddiff")
        except SystemExit as ended:
            code = ended.code or 0
    loaded = [name for name in json.loads(sys.argv[2]) if name in sys.modules]
    loaded += [name for name in sys.modules if name.startswith("colddiff.verbs.")
               and not name.endswith(".verb") and name.count(".") > 2]
    found.append([words, code, loaded])
print(json.dumps(found))
"""


def made_job(storage: Path, job_id: str, status: Status) -> None:
    folder = JobFolder(open_store(str(storage)), job_id)
    folder.claim(1, {"host": "elsewhere", "pid": 1})
    job = {"id": job_id, "verb": "train", "slug": "a", "created": 1.0, "spec": {"seed": 1}}
    folder.write_job({**job, "storage": str(storage)})
    folder.write_status(status)
    folder.write_log(1, b"a line\n")
    if status.state == "done":
        best = {"step": 2, "metric": "eval/sampled/rmse", "value": 0.2}
        folder.write_result({"id": job_id, "metrics": {}, "summary": ["a table"], "best": best})


def test_commands_on_submitted_jobs_import_nothing_heavy(tmp_path: Path) -> None:
    made_job(tmp_path, "train-a-00000001", Status("done", 1, step=2, num_steps=2, heartbeat=5.0))
    made_job(tmp_path, "train-b-00000002", Status("stopped", 1, step=1, num_steps=2))
    made_job(tmp_path, "generate-c-00000003", Status("stopped", 1, step=1, num_steps=2))
    ended = subprocess.run(
        [sys.executable, "-c", SCRIPT, json.dumps(COMMANDS), json.dumps([*HEAVY, *CLASSES])],
        env={"COLDDIFF_STORAGE": str(tmp_path), "PYTHONPATH": ":".join(sys.path)},
        capture_output=True,
        text=True,
        check=True,
    )
    found = {" ".join(words): (code, loaded) for words, code, loaded in json.loads(ended.stdout)}
    assert all(loaded == [] for _, loaded in found.values()), found
    stopped = found.pop("wait train-b-00000002 --json")
    assert stopped[0] == 4
    assert all(code == 0 for code, _ in found.values()), found
    assert JobFolder(open_store(str(tmp_path)), "train-b-00000002").status() is None


def test_the_commands_are_made_once_a_process(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[object] = []
    monkeypatch.setattr("typer.main.get_command", made.append)
    command.cache_clear()
    try:
        assert command() is command()
    finally:
        command.cache_clear()
    assert made == [app]
