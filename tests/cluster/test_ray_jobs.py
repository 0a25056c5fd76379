"""Attempts submitted to a real cluster: exit codes arrive, nothing runs twice, stop ends it."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from colddiff.cluster.address import Cluster
from colddiff.cluster.ray_jobs import RayJobs, entrypoint
from colddiff.errors import ClusterError
from colddiff.jobs.runner import DriverState
from tests.cluster.conftest import RunningCluster
from tests.kills import wait_until

pytestmark = pytest.mark.cluster

DRIVER = """
import os, sys, time
import colddiff
print("colddiff is", colddiff.__file__)
print("forked by", open("/proc/self/cmdline").read().split("\\0")[1])
print("secret is", os.environ.get("AWS_SECRET_ACCESS_KEY"))
print("colours", os.environ["RAY_COLOR_PREFIX"], "wait", os.environ["RAY_JOB_STOP_WAIT_TIME_S"])
with open(sys.argv[1], "a") as file:
    file.write("ran\\n")
time.sleep(float(sys.argv[2]))
sys.exit(int(sys.argv[3]))
"""

ACTORS = """
import json, os, sys
import psutil, ray
ray.init(log_to_driver=False)
@ray.remote
class Actor:
    def found(self):
        import torch
        server = psutil.Process().parent().cmdline()[1]
        threads = [torch.get_num_threads(), int(os.environ["OMP_NUM_THREADS"])]
        job = ray.get_runtime_context().get_job_id() == os.environ["RAY_JOB_ID"]
        return server, threads, job, os.nice(0), ray.ObjectRef.from_random().hex()
actors = [Actor.options(num_cpus=count).remote() for count in (1, 2, 1)]
print("niceness", os.nice(0))
print("found " + json.dumps(ray.get([actor.found.remote() for actor in actors])))
"""


@pytest.fixture(scope="module")
def jobs(cluster: RunningCluster) -> RayJobs:
    return RayJobs(cluster.cluster)


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A staged folder whose driver is a few lines, and whose colddiff is empty otherwise."""
    folder = tmp_path_factory.mktemp("stage")
    for package in ("colddiff", "colddiff/cluster"):
        (folder / package).mkdir()
        (folder / package / "__init__.py").touch()
    (folder / "colddiff" / "cluster" / "driver.py").write_text(DRIVER)
    return folder


def command(trace: Path, seconds: float = 0, code: int = 0) -> str:
    """The real entrypoint, with this test's arguments in place of the job's."""
    return f"{entrypoint(1, local=True).split(' job.json')[0]} {trace} {seconds} {code}"


def ended(jobs: RayJobs, name: str) -> DriverState:
    def state() -> DriverState:
        found = jobs.find_submission(name)
        assert found is not None
        return found

    wait_until(lambda: state().ended, f"the end of {name}", every_s=0.2)
    return state()


def test_exit_codes_arrive(jobs: RayJobs, stage: Path, tmp_path: Path) -> None:
    for code in (0, 1, 4):
        jobs.submit_folder(stage, command(tmp_path / "t", code=code), f"exit-{code}-1")
    ends = {code: ended(jobs, f"exit-{code}-1") for code in (0, 1, 4)}
    for code, end in ends.items():
        assert end == DriverState(ended=True, ending="exited", detail=f"exit code {code}")


def test_the_staged_package_wins_and_no_secret_is_in_the_submission(
    jobs: RayJobs, stage: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hush-hush")
    jobs.submit_folder(stage, command(tmp_path / "t"), "staged-1")
    ended(jobs, "staged-1")
    log = jobs.log_of_submission("staged-1")
    assert "/working_dir_files/" in log.split("colddiff is", 1)[1].splitlines()[0]
    assert "colours 0 wait 15" in log
    # Its variables and threads are others than those of the server: see `fork_server.log`.
    assert log.split("forked by ", 1)[1].splitlines()[0].endswith("server.py")
    assert "hush-hush" not in log
    assert "hush-hush" not in str(jobs._answer("/api/jobs/staged-1"))


def test_workers_are_forks_with_threads_and_random_numbers_of_their_own(
    jobs: RayJobs, stage: Path, tmp_path: Path
) -> None:
    (folder := tmp_path / "stage").mkdir()
    (folder / "actors.py").write_text(ACTORS)
    python = command(tmp_path).partition(" -P")[0]
    jobs.submit_folder(folder, f"{python} actors.py", "forks-1")
    assert ended(jobs, "forks-1").detail == "exit code 0"
    log = jobs.log_of_submission("forks-1")
    (line,) = [line for line in log.splitlines() if line.startswith("found ")]
    servers, threads, of_job, nice, drawn = zip(
        *json.loads(line.removeprefix("found ")), strict=True
    )
    assert {Path(path).name for path in servers} == {"server.py"}
    # Ray sets the variable once a worker has its CPUs, when torch has long been imported.
    given = int(os.environ.get("OMP_NUM_THREADS", 0))
    assert threads == tuple([given or cpus] * 2 for cpus in (1, 2, 1))
    assert all(of_job)
    # Ray's workers give way to its nodes; what submits work does not.
    lowered = int(os.environ.get("RAY_worker_niceness", 15))  # noqa: SIM112  # Ray's
    assert nice == (max(lowered, os.nice(0)),) * 3
    assert f"niceness {os.nice(0)}\n" in log
    assert len(set(drawn)) == 3  # Ray names objects by random numbers


def test_submitted_twice_it_runs_once(jobs: RayJobs, stage: Path, tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    jobs.submit_folder(stage, command(trace, seconds=3), "twice-1")
    jobs.submit_folder(stage, command(trace, seconds=3), "twice-1")
    running = jobs.find_submission("twice-1")
    assert running is not None
    assert not running.ended
    ended(jobs, "twice-1")
    assert trace.read_text() == "ran\n"


def test_an_ended_submission_of_the_same_name_makes_room(
    jobs: RayJobs, stage: Path, tmp_path: Path
) -> None:
    trace = tmp_path / "trace"
    for code in (1, 4):
        jobs.submit_folder(stage, command(trace, code=code), "again-1")
        assert ended(jobs, "again-1").detail == f"exit code {code}"
    assert trace.read_text() == "ran\nran\n"


def test_stop_ends_the_driver(jobs: RayJobs, stage: Path, tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    jobs.submit_folder(stage, command(trace, seconds=120), "stopped-1")
    wait_until(trace.exists, "the driver")
    jobs.stop_submission("stopped-1")
    assert jobs.find_submission("stopped-1") == DriverState(ended=True, ending="stopped")


def test_what_the_cluster_does_not_know(jobs: RayJobs) -> None:
    assert jobs.find_submission("nobody-1") is None
    assert jobs.log_of_submission("nobody-1") == ""
    jobs.stop_submission("nobody-1")


def test_the_address_given_wins_over_rays_environment(
    cluster: RunningCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "http://127.0.0.1:9")
    assert RayJobs(cluster.cluster).find_submission("nobody-1") is None
    assert os.environ["RAY_ADDRESS"] == "http://127.0.0.1:9"


@pytest.mark.parametrize(
    ("token", "message"), [(None, "requires a token"), ("0" * 64, "rejects the token")]
)
def test_the_token_is_required(
    cluster: RunningCluster, monkeypatch: pytest.MonkeyPatch, token: str | None, message: str
) -> None:
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", "/nonexistent")
    monkeypatch.delenv("RAY_AUTH_TOKEN", raising=False)
    with pytest.raises(ClusterError, match=message):
        RayJobs(Cluster(cluster.address, token))


def test_a_token_from_the_environment_is_used_when_asked_for(
    cluster: RunningCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(cluster.home.token_path))
    assert RayJobs(Cluster(cluster.address)).find_submission("nobody-1") is None
