"""Workers that are forks: what is asked for, what is refused, and that a fork is a new process."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
import threadpoolctl
from ray._private.utils import remove_ray_internal_flags_from_env

from colddiff.cluster.forking import CLIENT, client, server
from tests.kills import wait_until

PROGRAM = """
import gc, json, os, signal, sys
found = {
    "arguments": sys.argv, "env": dict(os.environ), "folder": os.getcwd(), "path": sys.path,
    "name": __name__, "leads its group": os.getpgid(0) == os.getpid(), "collects": gc.isenabled(),
    "waits": signal.getsignal(signal.SIGCHLD) == signal.SIG_DFL, "nice": os.nice(0),
    "oom": open("/proc/self/oom_score_adj").read(),
    "streams": [os.fstat(n).st_ino for n in (0, 1, 2)], "files": len(os.listdir("/proc/self/fd")),
}
own = {"parent": os.getppid(), "imported": "webdataset" in sys.modules}
own["imported for drivers"] = "mlflow" in sys.modules
if own["imported"]:
    import numpy, ray
    own["draws"] = [numpy.random.random(), ray.ObjectRef.from_random().hex()]
print(json.dumps([found, own]))
"""

MODULE = """
import atexit, ctypes, json, os, signal, sys, threading, time
what, *more = sys.argv[1:]
program = os.path.basename(sys.argv[0])
imported = {"torch", "scipy", "matplotlib", "mlflow"} <= sys.modules.keys()
print(json.dumps([__name__, program, more, os.getpid(), os.getppid(), imported]))
if what == "catch":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(4))
    print("waits")
if what in ("catch", "wait"):
    time.sleep(600)
if what == "threads":
    import numpy, threadpoolctl, torch
    pools = sorted({pool["num_threads"] for pool in threadpoolctl.threadpool_info()})
    print(json.dumps([torch.get_num_threads(), pools]))
    what = 0
if what == "3":
    class Kept:
        def __del__(self):
            print("taken apart")
    kept = Kept()
    def in_c():
        ctypes.CDLL(None).puts(b"from a library")
    threading.Thread(target=lambda: [time.sleep(0.2), print("a thread has ended")]).start()
    atexit.register(print, "the end")
    atexit.register(in_c)
sys.exit(int(what))
"""

ALIKE = """
import ray
from colddiff.cluster.forking.server import alike_forks
print(alike_forks())
ray.remote(type("Actor", (), {}))
print(alike_forks())
"""


def worker(*more: str, program: str = "/ray/default_worker.py") -> list[str]:
    return [program, "--raylet-name=/s/sockets/raylet", *more]


def with_context(**context: Any) -> list[str]:
    return worker(client.CONTEXT + json.dumps(context))


def test_a_worker_of_a_job_runs_in_its_folder_with_its_variables(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("A", "1")
    monkeypatch.delenv("B", raising=False)
    before = dict(os.environ)
    variables = {"B": "${A}/$A/${NO_SUCH}", "C": "$B"}
    arguments = with_context(env_vars=variables, command_prefix=["cd", "/job", "&&"])
    request = client.worker_request([*arguments, "--language=PYTHON", "--x"])
    assert request is not None
    assert request["arguments"] == [*worker(), "--x"]
    assert request["folder"] == "/job"
    assert request["env"] == before | {"B": "1/1/", "C": "1/1/"}
    assert dict(os.environ) == before  # a server that is started now is of no job


@pytest.mark.parametrize(
    "arguments",
    [
        worker("--language=JAVA"),
        worker(program="-S"),
        worker(program="another.py"),
        [],
        with_context(py_executable="/another/python"),
        with_context(override_worker_entrypoint="/in/a/container/default_worker.py"),
        with_context(command_prefix=["podman", "run", "image"]),
    ],
)
def test_what_is_no_worker_of_this_python_starts_as_ray_starts_it(arguments: list[str]) -> None:
    assert client.worker_request(arguments) is None


@pytest.mark.parametrize(
    ("asked", "reason"),
    [
        ({}, None),
        ({"RAY_worker_niceness": "0"}, None),
        ({"RAY_JOB_ID": "01000000", "RAY_TRAIN_X": "1", "RAY_EXPERIMENTAL_NOSET_X": "1"}, None),
        ({"PYTHONPATH": "/no/folder:/base"}, None),
        ({"OMP_NUM_THREADS": "7"}, "other variables: OMP_NUM_THREADS"),
        ({"LD_LIBRARY_PATH": "/x", "CUDA_VISIBLE_DEVICES": "0"}, "other variables: CUDA_VISIBLE"),
        ({"PYTHONPATH": "/elsewhere"}, "another PYTHONPATH: /elsewhere"),
    ],
)
def test_a_fork_differs_from_its_server_only_in_what_no_import_reads(
    asked: dict[str, str], reason: str | None
) -> None:
    base = {"PYTHONPATH": "/base", "HOME": "/h"}
    found = server.refusal({"env": base | asked}, base)
    assert (found is None) if reason is None else str(found).startswith(reason)


def test_a_driver_may_have_another_number_of_threads() -> None:
    assert threadpoolctl.threadpool_info() is not None  # the server has imported it too
    for count, reason in (("7", None), ("7,2", "other variables: OMP_NUM_THREADS")):
        request = {"module": "driver", "env": {"OMP_NUM_THREADS": count, "PWD": "/job"}}
        assert server.refusal(request, {"PWD": "/node"}) == reason


def test_a_job_that_brings_a_module_of_the_same_name_gets_its_own(tmp_path: Path) -> None:
    request = {"env": {"PYTHONPATH": str(tmp_path)}}
    (tmp_path / "unheard_of.py").touch()
    assert server.refusal(request, {}) is None
    (tmp_path / "json.py").touch()
    assert "json.py would be imported in place of" in str(server.refusal(request, {}))


def test_a_process_with_a_thread_or_a_gpu_is_never_forked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "DRIVERS", (str(tmp_path / "nvidia"),))
    assert threading.active_count() > 1 or server.unsafe() is None
    with (tmp_path / "nvidia0").open("w"):
        monkeypatch.setattr(threading, "active_count", lambda: 1)
        assert "a GPU's context does not survive a fork" in str(server.unsafe())
    assert server.unsafe() is None
    monkeypatch.undo()
    over = threading.Event()
    thread = threading.Thread(target=over.wait, name="of a test")
    thread.start()
    assert "a thread runs" in str(server.unsafe())
    over.set()
    thread.join()


def test_an_upgrade_of_what_is_imported_ends_the_forks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "LOOKS_EVERY_S", 0.0)
    module = type(sys)("upgraded")
    module.__file__ = str(tmp_path / "upgraded.py")
    Path(module.__file__).write_text("VERSION = 1")
    monkeypatch.setitem(sys.modules, "upgraded", module)
    files = server._Files()
    assert files.changed() is None
    Path(module.__file__).write_text("VERSION = 20")
    assert files.changed() == f"{module.__file__} has changed"
    Path(module.__file__).write_text("VERSION = 1")
    assert files.changed() == f"{module.__file__} has changed"  # for good


def test_forks_that_would_draw_the_same_numbers_are_noticed() -> None:
    done = subprocess.run([sys.executable, "-c", ALIKE], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["None", "forks would draw the same random numbers"]


class Node:
    """What there is of a node of Ray: its process and its folder."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.process = subprocess.Popen(["sleep", "600"])
        (place / "sockets").mkdir(parents=True)
        self.log = place / "logs" / "fork_server.log"
        self.log.parent.mkdir()
        self.program = place / "default_worker.py"
        self.program.write_text(PROGRAM)

    @property
    def servers(self) -> list[int]:
        """Those that serve: forks have their command line, and some are about to end."""
        command = ["server.py", f"{self.place}/sockets/fork"]
        running = {item.pid: item for item in psutil.process_iter(["cmdline", "ppid"])}
        found = {
            pid: item.info["ppid"]
            for pid, item in running.items()
            if item.info["cmdline"]
            and [Path(item.info["cmdline"][-2:][0]).name, item.info["cmdline"][-1]] == command
        }
        return [pid for pid, parent in found.items() if parent not in found]

    @contextmanager
    def module(
        self, *arguments: str, **env: str
    ) -> Iterator[tuple[subprocess.Popen[str], list[Any]]]:
        """The client of a module that runs as a fork, and what it has printed."""
        # As Ray's supervisor of jobs does: what it unpacks, what it sets, and what it takes away.
        folder = self.place / "runtime_resources" / "working_dir_files" / "job"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "module_of_a_job.py").write_text(MODULE)
        path = os.pathsep.join(filter(None, [str(folder), os.environ.get("PYTHONPATH", "")]))
        own = {"PYTHONPATH": path, "PYTHONUNBUFFERED": "1", "RAY_ADDRESS": "1", "PWD": str(folder)}
        variables = {**self.env, **own, **env}
        remove_ray_internal_flags_from_env(variables)
        with subprocess.Popen(
            [sys.executable, "-P", CLIENT, "-m", "module_of_a_job", *arguments],
            env=variables,
            cwd=folder,
            stdout=subprocess.PIPE,
            text=True,
        ) as client:
            assert client.stdout is not None
            found = json.loads(client.stdout.readline())
            try:
                yield client, found
            finally:
                client.kill()

    @property
    def env(self) -> dict[str, str]:
        """That of its workers."""
        inherited = {k: v for k, v in os.environ.items() if not k.startswith("PYTEST_")}
        return inherited | {"RAY_RAYLET_PID": str(self.process.pid)}

    def worker(self, start: str = CLIENT, **env: str) -> list[dict[str, Any]]:
        """What a worker finds, and what is its own."""
        arguments = ["--x", f"--raylet-name={self.place}/sockets/raylet"]
        program = [start, str(self.program), "--language=PYTHON"] if start else [str(self.program)]
        out = self.place / "out"
        with out.open("w") as stream:
            done = subprocess.run(
                [sys.executable, *program, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=stream,
                env=self.env | env,
                cwd=self.place,
                process_group=0,
                check=False,
            )
        assert done.returncode == 0, out.read_text()
        wait_until(lambda: out.read_text().endswith("]\n"), "the worker", every_s=0.01)
        found: list[dict[str, Any]] = json.loads(out.read_text())
        return found


@pytest.fixture(scope="module")
def node() -> Iterator[Node]:
    with tempfile.TemporaryDirectory(prefix="cdf-", dir="/tmp") as name:
        node = Node(Path(name) / "n")
        try:
            yield node
        finally:
            node.process.kill()
            node.process.wait()
            wait_until(lambda: not node.servers, "the end of the server with its node")


def test_a_fork_is_what_a_new_process_would_be(node: Node) -> None:
    wait_until(lambda: node.worker()[1]["imported"], "all imports", every_s=0.2)
    (job := node.place / "job").mkdir()
    python_path = os.pathsep.join(filter(None, [str(job), os.environ.get("PYTHONPATH", "")]))
    env = {"RAY_JOB_ID": "07000000", "PYTHONPATH": python_path}
    (fork, own), (new, _) = node.worker(**env), node.worker(start="", **env)
    assert (own["imported"], own["imported for drivers"]) == (True, False)
    assert [own["parent"]] == node.servers
    assert fork == new
    draws = zip(*(node.worker()[1]["draws"] for _ in range(2)), strict=True)
    assert all(one != other for one, other in draws)


def test_a_worker_that_cannot_be_a_fork_is_started_by_rays_own_program(node: Node) -> None:
    # Which starts it anew: it is a process by itself, and has imported nothing.
    assert node.worker(OMP_NUM_THREADS="3")[1]["parent"] not in node.servers
    assert "not forked: other variables: OMP_NUM_THREADS" in node.log.read_text()


def test_a_killed_server_is_replaced(node: Node) -> None:
    before = node.worker()[1]["parent"]
    assert [before] == node.servers, node.log.read_text()
    os.kill(before, 9)
    wait_until(lambda: not node.servers, "its end", every_s=0.01)
    after = node.worker()[1]["parent"]
    assert [after] == node.servers, node.log.read_text()
    assert after != before


def test_a_module_runs_as_a_fork_and_ends_as_it_would(node: Node) -> None:
    with node.module("3", "a", "b") as (client, (name, program, more, pid, parent, imported)):
        assert (name, program, more) == ("__main__", "module_of_a_job.py", ["a", "b"])
        assert parent in node.servers
        assert imported  # before it, not by it
        assert pid != client.pid
        assert client.stdout is not None
        last = ["a thread has ended", "from a library", "the end"]
        assert sorted(client.stdout.read().splitlines()) == last
        assert client.wait(60) == 3
    with node.module("catch") as (client, _):
        assert client.stdout is not None
        assert client.stdout.readline() == "waits\n"
        client.terminate()
        assert client.wait(60) == 4
    with node.module("wait") as (client, _):
        client.terminate()
        assert client.wait(60) == -signal.SIGTERM


def test_a_module_has_the_threads_of_its_own_variable(node: Node) -> None:
    wait_until(lambda: node.worker()[1]["imported"], "all imports", every_s=0.2)
    with node.module("threads", OMP_NUM_THREADS="3", PWD="/anywhere") as (client, found):
        assert found[4] in node.servers, node.log.read_text()
        assert client.stdout is not None
        assert json.loads(client.stdout.readline()) == [3, [3]]
        assert client.wait(60) == 0


def test_a_module_and_its_client_are_killed_together(node: Node) -> None:
    with node.module("wait") as (client, found):
        os.kill(found[3], signal.SIGKILL)
        assert client.wait(60) == -signal.SIGKILL
    with node.module("wait") as (client, found):
        client.kill()
        wait_until(lambda: not psutil.pid_exists(found[3]), "the end of the fork")


def test_without_a_server_a_module_runs_all_the_same(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LD_LIBRARY_PATH", "/no/such/folder")
    with node.module("0") as (client, found):
        assert found[:2] == ["__main__", "module_of_a_job.py"]
        assert found[3] == client.pid  # it has become the module
        assert client.wait(60) == 0


def test_a_module_starts_no_server_which_would_be_of_its_job(node: Node) -> None:
    for server_pid in node.servers:
        os.kill(server_pid, signal.SIGKILL)
    wait_until(lambda: not node.servers, "its end", every_s=0.01)
    with node.module("0") as (client, found):
        assert found[3] == client.pid
        assert client.wait(60) == 0
    assert node.servers == []
