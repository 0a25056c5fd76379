"""`colddiff slurm` on a real Slurm cluster of two nodes."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from colddiff.cluster.forking import CLIENT
from colddiff.cluster.slurm_script import Slurm, write_script
from colddiff.jobs.folder import JobFolder
from colddiff.stores.local_store import LocalStore
from tests.kills import wait_until
from tests.loopback_slurm import LoopbackSlurm, running_slurm

pytestmark = [pytest.mark.cluster, pytest.mark.system]

JOB = (
    *("quickstart", "num_steps=120", "checkpoint_every=20", "degradation.num_timesteps=4"),
    *("restorer={kind: convnext_unet, dim: 8, dim_mults: [1, 2]}", "global_batch_size=16"),
    # Two CPUs each, so that each worker has a node of its own.
    *("resources.cpus=2", "evaluation.num_images=8", "tracking.images=false"),
)


@pytest.fixture(scope="module")
def slurm() -> Iterator[LoopbackSlurm]:
    folder = Path(tempfile.mkdtemp(prefix="cdt-", dir="/tmp"))
    try:
        with running_slurm(folder) as cluster:
            yield cluster
    finally:
        shutil.rmtree(folder)


def _env(slurm: LoopbackSlurm, tmp_path: Path) -> dict[str, str]:
    others = ("COLDDIFF_ADDRESS", "RAY_ADDRESS", "MLFLOW_TRACKING_URI")
    return {k: v for k, v in slurm.env.items() if k not in others} | {
        "COLDDIFF_STORAGE": str(tmp_path / "runs"),
        "COLDDIFF_HOME": str(tmp_path / "home"),
        "COLDDIFF_CACHE": str(tmp_path / "cache"),
        "PYTHONPATH": str(Path(__file__).resolve().parents[2]),
    }


def _submit(slurm: LoopbackSlurm, tmp_path: Path, nodes: int, workers: int) -> str:
    """Submits JOB; returns the id of the Slurm job."""
    answer = subprocess.run(
        [
            *(sys.executable, "-m", "colddiff.cli.main", "slurm", *JOB, f"workers={workers}"),
            *("--nodes", str(nodes), "--time", "20", "--submit"),
        ],
        env=_env(slurm, tmp_path),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert answer.returncode == 0, answer.stderr
    return answer.stdout.strip()


def _log(tmp_path: Path) -> str:
    """The log of the Slurm job; empty before it has begun."""
    return "".join(path.read_text() for path in tmp_path.glob("train-*.log"))


def _clients_of_forks() -> list[str]:
    """Where what stands for a fork runs, in the allocations; one without a fork is no client."""
    found = psutil.process_iter(["cmdline", "cwd"])
    clients = [item.info["cwd"] or "" for item in found if CLIENT in (item.info["cmdline"] or ())]
    return [place for place in clients if place.startswith("/tmp/cds-")]


def test_a_training_on_two_nodes_is_requeued_once_and_done(
    slurm: LoopbackSlurm, tmp_path: Path
) -> None:
    before = set(Path("/tmp").glob("cds-*-*"))
    job = _submit(slurm, tmp_path, nodes=2, workers=2)
    jobs = tmp_path / "runs" / "jobs"
    wait_until(lambda: list(jobs.glob("*/checkpoints/*/checkpoint.json")), "a checkpoint")
    folder = JobFolder(LocalStore(tmp_path / "runs"), next(jobs.iterdir()).name)
    assert len(_clients_of_forks()) == 1  # its driver
    # What Slurm itself sends by --signal, at whole minutes.
    slurm.command("scancel", "--batch", "--signal=USR1", job)
    ended = slurm.wait(job)
    log = _log(tmp_path)
    assert (ended["JobState"], ended["ExitCode"], ended["Restarts"]) == ("COMPLETED", "0:0", "1"), (
        log
    )
    assert log.count("starting Ray on 2 nodes") == 2
    assert log.count(f"requeueing Slurm job {job}") == 1
    status = folder.status()
    assert status
    assert (status.state, status.attempt, status.step) == ("done", 2, 120)
    stopped_at = int((folder.outcome(1) or {})["step"])
    starts = [folder.fence(2, start) for start in folder.fencing_tokens(2)]
    assert [(start["step"], start["world_size"]) for start in starts] == [(stopped_at, 2)]
    assert 20 <= stopped_at < 120
    assert set(Path("/tmp").glob("cds-*-*")) <= before


def test_an_allocation_that_ends_before_the_first_checkpoint_is_not_requeued(
    slurm: LoopbackSlurm, tmp_path: Path
) -> None:
    job = _submit(slurm, tmp_path, nodes=1, workers=1)
    wait_until(lambda: "starting Ray on 1 nodes" in _log(tmp_path), "Ray's start")
    slurm.command("scancel", "--batch", "--signal=USR1", job)
    ended = slurm.wait(job)
    assert (ended["JobState"], ended["ExitCode"], ended["Restarts"]) == ("FAILED", "4:0", "0")
    last = _log(tmp_path).splitlines()[-1]
    assert f"Slurm job {job} ended before the first checkpoint, so it is not requeued" in last
    assert "ask for more --time" in last


def test_nodes_without_ray_are_named_in_one_line(
    slurm: LoopbackSlurm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", "/nowhere/bin/python")
    script = write_script(Slurm(nodes=2, time="20"), "train-none", ["train", *JOB], tmp_path, {})
    answer = subprocess.run(
        ["sbatch", "--parsable"],
        input=script,
        env=slurm.env,
        capture_output=True,
        text=True,
        check=True,
    )
    ended = slurm.wait(answer.stdout.strip())
    assert (ended["JobState"], ended["ExitCode"]) == ("FAILED", "2:0")
    (line,) = _log(tmp_path).splitlines()
    assert line.startswith("colddiff: error: /nowhere/bin/python on ")
    assert "install it where all nodes see it" in line


@pytest.mark.skipif("SLURM_JOB_ID" in os.environ, reason="runs in a Slurm job")
def test_the_batch_part_runs_in_an_allocation_only() -> None:
    command = [sys.executable, "-m", "colddiff.cli.main", "slurm-job", "train", "quickstart"]
    answer = subprocess.run(command, capture_output=True, text=True, check=False)
    assert answer.returncode == 2
    assert "`colddiff slurm JOB --submit` submits one" in answer.stderr
