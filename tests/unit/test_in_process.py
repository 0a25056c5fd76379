"""The protocol in this process: attach, interruption, SIGTERM and verdicts, for every verb."""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import colddiff
from colddiff.checkpoints.format import Checkpoints
from colddiff.errors import ColddiffError, SpecError, Stopped
from colddiff.jobs.driver import _stop_on_interrupt
from colddiff.jobs.folder import JobFolder
from colddiff.machine.printed_lines import unstamped
from colddiff.stores.local_store import LocalStore
from tests.forked import Forked, colddiff_main, forked_command
from tests.kills import wait_until
from tests.unit.generation.trained import TRAIN, train_tiny

SLOW = ["num_samples=4000", "shard_size=20", "batch_size=20"]
"""Takes long enough to be interrupted; a shard of it takes a moment."""


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, tracker_database: Path) -> dict[str, str]:
    return train_tiny(tmp_path_factory.mktemp("trained"), tracker_database)


@pytest.fixture
def env(trained: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The storage of the checkpoint, for this process and for commands."""
    monkeypatch.setenv("COLDDIFF_STORAGE", trained["storage"])
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return {**os.environ, "OMP_NUM_THREADS": "1"}


def generating(trained: dict[str, str], env: dict[str, str], name: str) -> Forked:
    """A generation under way in a process of its own, which has committed something."""
    words = ["submit", "generate", f"checkpoint={trained['job']}", *SLOW, "--local", "--name", name]
    process = Forked(colddiff_main, *words, env=env)
    deadline = time.monotonic() + 120
    samples = Path(trained["storage"], "samples")
    while not list(samples.glob(f"generate-{name}-*/shard-*.tar")):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return process


def folder_of(trained: dict[str, str], name: str) -> JobFolder:
    (path,) = Path(trained["storage"], "jobs").glob(f"generate-{name}-*")
    return JobFolder(LocalStore(Path(trained["storage"])), path.name)


def test_sigterm_stops_a_generation_and_the_same_command_resumes_it(
    trained: dict[str, str], env: dict[str, str]
) -> None:
    process = generating(trained, env, "sigterm")
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 4, said
    assert "stopped with" in said.splitlines()[-1]
    status = folder_of(trained, "sigterm").status()
    assert status is not None
    assert status.state == "stopped"
    assert 0 < status.step < 4000


def test_an_interrupted_job_in_this_process_is_stopped(
    trained: dict[str, str], env: dict[str, str]
) -> None:
    process = generating(trained, env, "sigint")
    process.send_signal(signal.SIGINT)
    out, said = process.communicate(timeout=60)
    assert process.returncode == 130, said
    folder = folder_of(trained, "sigint")
    assert out == f"{folder.job_id}\n"
    status = folder.status()
    assert status is not None
    assert status.state == "stopped"
    assert status.message.startswith("stopped with ")
    assert "Ctrl-C: stopping at the next step; once more to end at once" in said


def test_ctrl_c_takes_a_checkpoint_of_a_training_in_this_process(
    storage: Path, packed: dict[str, str]
) -> None:
    words = [
        *("submit", "train", "--local", "--name", "long", f"data={packed['data']}"),
        *("image_size=16", "channels=1", "degradation={kind: noise, num_timesteps: 3}"),
        *("restorer={kind: convnext_unet, dim: 8, dim_mults: [1, 2]}", "global_batch_size=8"),
        *("num_steps=1000000", "checkpoint_every=1000000", "test_data=null"),
    ]
    process = Forked(colddiff_main, *words)
    progress = "jobs/train-long-*/attempts/1/progress.json"
    wait_until(lambda: list(storage.glob(progress)), "a step")
    (path,) = (storage / "jobs").iterdir()
    folder = JobFolder(LocalStore(storage), path.name)
    wait_until(lambda: folder.progress(1).get("step", 0) > 2, "some steps")
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130, said
    status = folder.status()
    assert status is not None
    assert status.step > 2
    (step,) = Checkpoints(folder.store, folder.key("checkpoints")).steps()
    assert step == status.step
    assert said.splitlines()[-1] == f"{folder.job_id}: {status.message}"
    assert f"stopped after step {step} of 1000000, with a checkpoint" in status.message


def test_a_second_ctrl_c_ends_at_once(tmp_path: Path) -> None:
    asked: list[int] = []
    attempt: Any = SimpleNamespace(request_stop=lambda: asked.append(1))
    with _stop_on_interrupt(attempt, on_ray=False) as interrupted:
        signal.raise_signal(signal.SIGINT)
        assert interrupted.is_set()
        wait_until(lambda: asked == [1], "the request")
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    with pytest.raises(KeyboardInterrupt), _stop_on_interrupt(attempt, on_ray=True):
        signal.raise_signal(signal.SIGINT)
    assert asked == [1]


def test_a_second_call_attaches_to_the_process_that_runs_the_job(
    trained: dict[str, str], env: dict[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    process = generating(trained, env, "attached")
    job: dict[str, Any] = {
        "checkpoint": trained["job"],
        "num_samples": 4000,
        "shard_size": 20,
        "batch_size": 20,
    }
    ends: list[Exception] = []

    def call() -> None:
        try:
            colddiff.generate(job, name="attached")
        except Exception as error:
            ends.append(error)

    caplog.set_level(logging.INFO, "colddiff")
    caller = threading.Thread(target=call)
    caller.start()
    wait_until(lambda: "is already running (attempt 1" in caplog.text, "the second call")
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    caller.join(timeout=30)
    (ended,) = ends
    assert isinstance(ended, Stopped)
    assert folder_of(trained, "attached").attempts() == [1]


def test_a_failed_local_job_prints_its_verdict_and_keeps_its_log(
    storage: Path, packed: dict[str, str]
) -> None:
    words = ["submit", "train", "quickstart", "num_steps=3", "optimizer.lr=1e30", "restorer.dim=8"]
    done = forked_command([*words, f"data={packed['data']}", "test_data=null", "--local"])
    assert done.returncode == 1
    verdict = done.stderr.splitlines()[-1]
    assert "ended: failed" in verdict
    assert "is not finite" in verdict
    (log,) = storage.glob("jobs/*/attempts/1/log.txt")
    assert unstamped(log.read_text().splitlines()[-1]) == verdict


def test_each_verb_is_a_function_that_checks_its_job(
    trained: dict[str, str], env: dict[str, str]
) -> None:
    fields = {"checkpoint": trained["job"], "num_images": 8, "batch_size": 8, "severities": 1}
    found = colddiff.evaluate(fields, name="api")
    assert found["metrics"]["eval/direct/rmse"] > 0
    assert colddiff.evaluate(fields, name="api") == found
    made = colddiff.generate({"checkpoint": trained["job"], "num_samples": 3}, name="api")
    assert (made["num_samples"], made["id"].startswith("generate-api-")) == (3, True)
    with pytest.raises(SpecError, match=r"colddiff.generate takes a GenerateJob, got TrainJob"):
        colddiff.generate(colddiff.TrainJob(**TRAIN))  # type: ignore[arg-type]
    with pytest.raises(SpecError, match="num_sampels"):
        colddiff.generate({"checkpoint": trained["job"], "num_sampels": 3})
    with pytest.raises(ColddiffError, match="no committed checkpoint"):
        colddiff.evaluate({"checkpoint": "nothing"})
    assert "colddiff submit" in str(colddiff.generate.__doc__)
