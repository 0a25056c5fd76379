"""The local cluster: started once, private, guarded by its token, and ended without a trace."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from colddiff.cluster import local_cluster
from colddiff.cluster.home import ClusterRecord, Home
from colddiff.cluster.local_cluster import MARKER
from colddiff.cluster.ray_jobs import RayJobs
from colddiff.errors import ClusterError
from colddiff.jobs.submit import followed
from colddiff.machine.processes import Process, alive, marked_processes, processes
from tests.cluster.conftest import RunningCluster
from tests.cluster.test_submit import NEVER_S, Case, no_show, stage
from tests.kills import PATIENCE_S, wait_until

pytestmark = pytest.mark.cluster

START = """
import sys
from colddiff.cluster import local_cluster
from colddiff.cluster.home import Home
print(local_cluster.start(Home.from_environment()).pid)
"""


@pytest.fixture
def home() -> Iterator[Home]:
    """An empty home of its own; what a test leaves running there ends with it."""
    found = Home(Path(tempfile.mkdtemp(prefix="cdt-", dir="/tmp")))
    yield found
    local_cluster.stop(found)
    shutil.rmtree(found.path)


def members(home: Home) -> set[Process]:
    record = home.record()
    assert record is not None
    return marked_processes(f"{MARKER}={record.session}", record.pid)


def test_two_starts_at_once_are_one_cluster_and_stop_leaves_nothing(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    env = {**os.environ, "COLDDIFF_HOME": str(home.path)}
    starts = [
        subprocess.Popen([sys.executable, "-c", START], env=env, stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    pids = {start.communicate(timeout=PATIENCE_S)[0].strip() for start in starts}
    record = home.record()
    assert record is not None
    assert pids == {str(record.pid)}

    # A driver with a session of its own, a child that outlives it, and an actor that Ray renames.
    jobs = RayJobs(local_cluster.local(home, record))
    folder = Path(tempfile.mkdtemp(dir=home.path))
    (folder / "driver.py").write_text(
        "import ray, subprocess, time\n"
        "@ray.remote(num_cpus=0)\n"
        "class A:\n"
        "    def f(self): return subprocess.Popen(['sleep', '600'], start_new_session=True).pid\n"
        "ray.init(); a = A.remote(); print('child', ray.get(a.f.remote()), flush=True)\n"
        "time.sleep(600)\n"
    )
    jobs.submit_folder(folder, f"{sys.executable} driver.py", "busy-1")
    wait_until(
        lambda: "child" in jobs.log_of_submission("busy-1"), "the driver's child", every_s=0.5
    )
    child = int(jobs.log_of_submission("busy-1").split("child")[1].split()[0])

    # A job that somebody follows: its cluster's end is its own, whatever its heartbeat was.
    monkeypatch.setenv("COLDDIFF_HOME", str(home.path))
    case = Case(tmp_path, RayJobs(local_cluster.local(home, record), stage))
    case.submit("wait", detach=True)
    case.until(lambda status: status.state == "running")

    before = members(home)
    assert {child, record.pid} <= {item.pid for item in before}
    assert any("raylet" in item.command for item in before)
    assert any("gcs_server" in item.command for item in before)
    # What no job uses is not there: a server of Ray's own clients, and the half of the import of
    # Ray's commands that is Serve's.
    assert not [item for item in before if "ray.util.client" in item.command]
    assert "pyarrow" not in Path(f"/proc/{record.pid}/maps").read_text()
    assert local_cluster.stop(home)
    assert not [item for item in before if alive(item)]
    assert not [item for item in processes().values() if record.session in item.command]
    assert not Path(record.temp_dir).parent.exists()
    assert not home.record_path.exists()
    assert not local_cluster.stop(home)
    monkeypatch.setattr("colddiff.jobs.follow.LOST_AFTER_S", NEVER_S)
    outcome = followed(case.folder, 1, case.jobs, no_show)
    assert (outcome.state, outcome.exit_code) == ("lost", 1)
    assert "submit the same job again" in outcome.message


def test_a_second_start_finds_the_first(cluster: RunningCluster) -> None:
    assert local_cluster.start(cluster.home) == cluster.record
    with pytest.raises(ClusterError, match="already runs with --dashboard-port"):
        local_cluster.start(cluster.home, dashboard_port=1024)


def test_home_and_secrets_are_private(cluster: RunningCluster) -> None:
    def mode(path: Path) -> int:
        return stat.S_IMODE(path.stat().st_mode)

    home = cluster.home
    assert mode(home.path) == 0o700
    assert mode(home.token_path) == mode(home.record_path) == mode(home.log_path) == 0o600
    assert mode(Path(cluster.record.temp_dir).parent) == 0o700
    token = home.token()
    assert len(token) >= 32
    assert token not in home.record_path.read_text() + home.log_path.read_text()
    assert not [item for item in processes().values() if token in item.command]


def test_the_dashboard_listens_on_loopback_only(cluster: RunningCluster) -> None:
    port = cluster.record.dashboard_port
    outside = [
        address[4][0]
        for address in socket.getaddrinfo(socket.gethostname(), port, socket.AF_INET)
        if not str(address[4][0]).startswith("127.")
    ]
    for host in outside:
        with socket.socket() as client:
            client.settimeout(2)
            assert client.connect_ex((host, port)) != 0


def test_rays_own_client_is_refused_without_the_token(cluster: RunningCluster) -> None:
    code = (
        "import ray, sys\n"
        f"ray.init('127.0.0.1:{cluster.record.ports['port']}', log_to_driver=False)\n"
        "print('cpus', int(ray.cluster_resources()['CPU']))"
    )

    def connect(**env: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-c", code],
            env={**cluster.env, **env},
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            check=False,
        )

    empty = cluster.home.path / "wrong"
    empty.write_text("0" * 64)
    refused = connect(RAY_AUTH_TOKEN_PATH=str(empty))
    assert refused.returncode != 0
    assert "oken" in refused.stderr
    welcome = connect()
    assert welcome.returncode == 0, welcome.stderr
    assert int(welcome.stdout.split("cpus")[1]) >= 4


def test_a_record_whose_number_belongs_to_another_program_is_cleaned_up(home: Home) -> None:
    bystander = subprocess.Popen(["sleep", "600"], start_new_session=True)
    try:
        home.make()
        home.record_path.write_text(
            json.dumps(
                {
                    "pid": bystander.pid,
                    "session": "feedbeef",
                    "address": "http://127.0.0.1:9",
                    "dashboard_port": 9,
                    "temp_dir": str(home.path / "ray-feedbeef" / "r"),
                }
            )
        )
        assert local_cluster.running(home) is None
        assert not local_cluster.stop(home)
        assert bystander.poll() is None
        assert not home.record_path.exists()
    finally:
        bystander.kill()
        bystander.wait()


@pytest.fixture(scope="module")
def far_away() -> Iterator[Home]:
    """A cluster whose home, and TMPDIR, have paths too long for sockets; one for two tests."""
    place = Path(tempfile.mkdtemp(prefix="cdt-", dir="/tmp"))
    deep = Home(place / ("d" * 60))
    try:
        (long := place / ("t" * 80)).mkdir()
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("TMPDIR", str(long))
            local_cluster.start(deep)
        yield deep
    finally:
        local_cluster.stop(deep)
        shutil.rmtree(place)


def test_a_long_home_gets_a_short_private_folder_elsewhere(far_away: Home) -> None:
    record = far_away.record()
    assert record is not None
    folder = Path(record.temp_dir).parent
    assert folder.parent == Path("/tmp")
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    head = Path(f"/proc/{record.pid}/environ").read_bytes().split(b"\0")
    assert f"TMPDIR={folder}".encode() in head


def test_a_killed_head_leaves_nothing_that_the_next_stop_does_not_end(far_away: Home) -> None:
    record = far_away.record()
    assert record is not None
    before = members(far_away)
    os.kill(record.pid, signal.SIGKILL)
    while local_cluster.running(far_away) is not None:
        time.sleep(0.05)
    assert not local_cluster.stop(far_away)
    assert not [item for item in before if alive(item)]
    assert not Path(record.temp_dir).parent.exists()


def test_a_port_that_is_taken_is_named(home: Home) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        for option in ("port", "dashboard_port"):
            with pytest.raises(ClusterError, match=rf"--{option.replace('_', '-')} {port}.*in use"):
                local_cluster.start(home, **{option: port})
    with pytest.raises(ClusterError, match="--port 70000"):
        local_cluster.start(home, port=70000)
    assert home.record() is None


def test_a_head_that_does_not_come_up_is_one_line_with_its_log(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_START_HOOK", "no_such_module.hook")
    looks, head = [0], local_cluster._head

    def head_without_a_command_line_yet(record: ClusterRecord) -> Process | None:
        looks[0] += 1
        return None if looks[0] == 1 else head(record)

    monkeypatch.setattr(local_cluster, "_head", head_without_a_command_line_yet)
    with pytest.raises(ClusterError) as raised:
        local_cluster.start(home)
    assert "\n" not in str(raised.value)
    assert str(home.log_path) in str(raised.value)
    assert "no_such_module" in home.log_path.read_text()
    assert home.record() is None
    assert not list(home.path.glob("ray-*"))
