"""Commands on a machine whose clock is minutes ahead or behind that of the driver's."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from colddiff.jobs.folder import JobFolder
from colddiff.jobs.status import Status
from colddiff.stores.local_store import LocalStore
from tests.meanwhile import meanwhile

ROOT = Path(__file__).resolve().parents[2]
FASTER = "from colddiff.jobs import follow; follow.LOST_AFTER_S = 4.0"
SKEWED = "import time; real = time.time; time.time = lambda: real() + {}"
MAIN = "from colddiff.cli.main import main; main()"
RUNNING = Status("running", attempt=1, step=3, num_steps=9, host="another-machine", pid=7)
MINUTES_S = 300


def command(clock_s: int, *words: str, storage: Path) -> subprocess.CompletedProcess[str]:
    """``colddiff words`` on a machine whose clock is ``clock_s`` ahead of the driver's."""
    env = {**os.environ, "COLDDIFF_STORAGE": str(storage), "PYTHONPATH": str(ROOT)}
    env["COLDDIFF_HOME"] = str(storage / "home")
    code, call = f"{FASTER}\n{MAIN}", [sys.executable, "-c"]
    if shutil.which("faketime"):
        call = ["faketime", "-f", f"{clock_s:+d}s", *call]
    else:
        code = f"{SKEWED.format(clock_s)}\n{code}"
    return subprocess.run(
        [*call, code, *words], env=env, capture_output=True, text=True, timeout=120, check=False
    )


@contextmanager
def beating(folder: JobFolder) -> Iterator[None]:
    """A driver on another machine that lives."""

    def beat() -> None:
        folder.write_status(replace(RUNNING, heartbeat=time.time()))

    beat()
    with meanwhile(beat, every_s=0.5):
        yield


@pytest.fixture
def folder(tmp_path: Path) -> JobFolder:
    made = JobFolder(LocalStore(tmp_path), "train-a-00000000")
    made.write_job({"id": "train-a-00000000", "verb": "train", "spec": {}})
    made.claim(1, {"host": "another-machine", "pid": 7})
    return made


@pytest.mark.parametrize("clock_s", [-MINUTES_S, MINUTES_S])
def test_a_living_driver_is_running_whatever_the_clocks_say(
    folder: JobFolder, tmp_path: Path, clock_s: int
) -> None:
    with beating(folder):
        for words in (["status", folder.job_id], ["list"]):
            done = command(clock_s, *words, storage=tmp_path)
            assert done.returncode == 0, done.stderr
            assert "running" in done.stdout
            assert "lost" not in done.stdout + done.stderr
        assert folder.stop_requested(1) is False


@pytest.mark.parametrize("clock_s", [-MINUTES_S, MINUTES_S])
def test_a_dead_driver_is_lost_whatever_the_clocks_say(
    folder: JobFolder, tmp_path: Path, clock_s: int
) -> None:
    folder.write_status(replace(RUNNING, heartbeat=time.time()))
    done = command(clock_s, "wait", folder.job_id, storage=tmp_path)
    assert done.returncode == 1, done.stderr
    assert "ended: lost" in done.stderr
    assert "no heartbeat in" in done.stderr
