"""The sbatch script of a job: its options, what it keeps of the environment, what is refused."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from colddiff.cli.main import app
from colddiff.cluster import slurm_node
from colddiff.cluster.slurm_allocation import step_command
from colddiff.cluster.slurm_node import start_command
from colddiff.cluster.slurm_script import Slurm, submit_script, time_limit_s, write_script
from colddiff.errors import ClusterError, SpecError


def _script(slurm: Slurm, folder: Path = Path("/shared/me"), **env: str) -> str:
    return write_script(slurm, "train-x", ["train", "x", "name=a b"], folder, env)


def _options(script: str) -> list[str]:
    lead = "#SBATCH "
    return [line.removeprefix(lead) for line in script.splitlines() if line.startswith(lead)]


def test_the_command_prints_a_script_that_bash_takes() -> None:
    words = ["slurm", "quickstart", "num_steps=60", "--nodes", "2", "--time", "1-12"]
    printed = CliRunner().invoke(app, words)
    assert printed.exit_code == 0, printed.output
    subprocess.run(["bash", "-n"], input=printed.stdout, text=True, check=True)
    assert printed.stdout.startswith("#!/bin/bash\n")
    assert printed.stdout.rstrip().endswith("slurm-job train quickstart num_steps=60")
    assert {"--nodes=2", "--time=1-12", "--requeue", "--signal=B:USR1@120"} <= set(
        _options(printed.stdout)
    )


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (["quickstart", "num_step=60"], "num_steps"),
        (["quickstart", "--verb", "trai"], "one of evaluate, generate"),
        (["quickstart", "--time", "soon"], "use minutes (90)"),
        (["quickstart", "--time", "2"], "is over before the checkpoint"),
        (["quickstart", "--sbatch", "gpu"], "write one option as --name=value"),
        (["quickstart", "--sbatch=--signal=USR2@1"], "colddiff sets --signal itself"),
    ],
)
def test_bad_input_is_refused_before_anything_is_queued(words: list[str], problem: str) -> None:
    found = CliRunner().invoke(app, ["slurm", *words])
    assert isinstance(found.exception, SpecError)
    assert problem in str(found.exception)
    assert found.stdout == ""


def test_without_sbatch_the_way_out_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(ClusterError, match="sbatch is not on the PATH: run this on a login node"):
        submit_script("#!/bin/bash\n")


def test_settings_are_kept_and_secrets_are_not() -> None:
    script = _script(
        Slurm(),
        COLDDIFF_STORAGE="s3://bucket/a b",
        MLFLOW_TRACKING_URI="https://me:hunter2@mlflow.example",
        AWS_SECRET_ACCESS_KEY="hunter2",
    )
    assert "export COLDDIFF_STORAGE='s3://bucket/a b'" in script
    assert "hunter2" not in script
    assert script.rstrip().endswith("slurm-job train x 'name=a b'")


def test_whole_nodes_unless_cpus_are_asked_for() -> None:
    assert "--exclusive" in _options(_script(Slurm()))
    shared = _options(_script(Slurm(options=("--cpus-per-task=8", "--output=out/%j"))))
    assert "--exclusive" not in shared
    assert [line for line in shared if line.startswith("--output")] == ["--output=out/%j"]


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90", 5400), ("1:30", 90), ("12:00:00", 43200), ("2-12", 216000), ("1-00:01:01", 86461)],
)
def test_time_limits_are_read_as_slurm_reads_them(text: str, seconds: int) -> None:
    assert time_limit_s(text) == seconds


def test_a_node_offers_what_slurm_gave_it_and_no_more() -> None:
    env = {
        "SLURM_CPUS_ON_NODE": "8",
        "SLURM_NODEID": "1",
        "SLURM_LAUNCH_NODE_IPADDR": "10.0.0.7",
    }
    worker = start_command(env, Path("/tmp/x/r"), (6380, 8266))
    assert {"--num-cpus=8", "--num-gpus=0", "--address=10.0.0.7:6380"} <= set(worker)
    assert "--head" not in worker
    head = start_command(
        {**env, "SLURM_NODEID": "0", "SLURM_GPUS_ON_NODE": "4"}, Path("/r"), (1, 2)
    )
    assert {"--head", "--num-gpus=4", "--port=1", "--dashboard-host=127.0.0.1"} <= set(head)


def test_folders_of_killed_tasks_are_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended = subprocess.Popen(["true"])
    ended.wait()
    names = (f"cds-{ended.pid}-x", f"cds-{os.getpid()}-y", "cds-of-others")
    for name in names:
        (tmp_path / name).mkdir()
    monkeypatch.setattr(slurm_node, "PLACE", str(tmp_path))
    slurm_node._remove_leftovers()
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(names[1:])


def test_the_token_is_no_argument_of_the_step() -> None:
    assert not [word for word in step_command(3, 1, 2) if "token" in word.lower()]
    assert os.environ.get("RAY_AUTH_TOKEN") is None


def test_a_node_without_ray_is_one_line_with_the_way_out(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    bare = tmp_path / "python"  # this Python without any package
    bare.write_text(f'#!/bin/sh\nexec "{sys.executable}" -I -S "$@"\n')
    bare.chmod(0o755)
    monkeypatch.setattr("sys.executable", str(bare))
    script = _script(Slurm())
    ended = subprocess.run(["bash"], input=script, text=True, capture_output=True, check=False)
    assert (ended.returncode, ended.stdout) == (2, "")
    (line,) = ended.stderr.splitlines()
    assert "has no colddiff with Ray; install it where all nodes see it" in line
