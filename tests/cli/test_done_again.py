"""A job that is done says so before a cluster is started or its tracker is asked."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from colddiff.jobs.folder import JobFolder
from colddiff.jobs.status import progress_line
from colddiff.stores.open import open_store
from tests.in_process import colddiff_here
from tests.unit.generation.trained import TRAIN

LATE = ("torch", "ray", "mlflow", "sklearn", "scipy", "pandas", "matplotlib", "boto3")
SCRIPT = """
import json, sys
from colddiff.cli.main import main
from colddiff.machine.deferred_import import is_imported

try:
    main()
except SystemExit as ended:
    loaded = [name for name in json.loads({late!r}) if is_imported(name)]
    print(json.dumps([ended.code, loaded]))
"""


def test_a_finished_job_is_reported_before_a_cluster_or_a_tracker_is_needed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in os.environ:
        if name.startswith(("COLDDIFF_", "RAY_", "MLFLOW_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("COLDDIFF_STORAGE", str(tmp_path / "runs"))
    monkeypatch.setenv("COLDDIFF_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("COLDDIFF_HOME", str(tmp_path / "home"))
    path = tmp_path / "job.yaml"
    path.write_text(yaml.safe_dump({"name": "again", "train": {**TRAIN, "num_steps": 2}}))
    first = colddiff_here(monkeypatch, capsys, "submit", "train", path, "--local")
    assert first.returncode == 0, first.stderr
    (job_id,) = first.stdout.split()

    # Not --local: on a cluster, which would be the local one, and with a server that is away.
    again = subprocess.run(
        [sys.executable, "-c", SCRIPT.format(late=json.dumps(LATE)), "submit", "train", str(path)],
        env={**os.environ, "MLFLOW_TRACKING_URI": "http://127.0.0.1:9"},
        capture_output=True,
        text=True,
        check=True,
    )
    told, (code, loaded) = again.stdout.splitlines()[0], json.loads(again.stdout.splitlines()[-1])
    assert (told, code, loaded) == (job_id, 0, [])
    assert f"{job_id} is done" in again.stderr
    assert not (tmp_path / "home").exists()
    assert JobFolder(open_store(str(tmp_path / "runs")), job_id).attempts() == [1]

    words = ["submit", "train", path, "num_steps=1", "--local"]
    shorter = colddiff_here(monkeypatch, capsys, *words)
    assert (shorter.returncode, shorter.stdout) == (0, f"{job_id}\n")
    assert shorter.stderr.count("num_steps=1 is less than the 2 steps already done") == 1
    assert "is less than" not in first.stderr + again.stderr

    # How it is evaluated is not part of its id.
    other = ("evaluation.num_images=9", "evaluation.severities=[2,0]")
    otherwise = colddiff_here(monkeypatch, capsys, "submit", "train", path, *other, "--local")
    assert (otherwise.returncode, otherwise.stdout) == (0, f"{job_id}\n")
    assert otherwise.stderr.splitlines()[-1].endswith(
        "its numbers were measured with evaluation.num_images=8, evaluation.severities=1, and are "
        f"not measured again; `colddiff submit evaluate checkpoint={job_id}@best num_images=9 "
        "'severities=[2,0]' --local` evaluates so"
    )
    assert "measured with" not in again.stderr + shorter.stderr

    # One that was stopped there has nothing to do either, and is not begun again.
    folder = JobFolder(open_store(str(tmp_path / "runs")), job_id)
    status = folder.status()
    assert status is not None
    folder.write_status(replace(status, state="stopped", num_steps=8))
    left = colddiff_here(monkeypatch, capsys, *words)
    assert (left.returncode, left.stdout, folder.attempts()) == (4, f"{job_id}\n", [1])
    assert "was stopped (2 of 8 steps)" in left.stderr
    assert "and never shortened; num_steps=2 ends it there" in left.stderr
    beyond = replace(status, num_steps=1, state="queued", phase="queued")
    assert "2/2  100%" in progress_line(beyond)
