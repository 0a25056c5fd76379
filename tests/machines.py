"""A Ray cluster of several machines, as far as Ray can tell, and drivers of jobs on it."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import psutil
import pytest
import ray._common.utils
import ray.cluster_utils

from colddiff.cluster.forking import CLIENT
from colddiff.jobs.folder import JobFolder
from colddiff.jobs.resolve import ResolvedJob
from tests.kills import wait_until


def free_port() -> int:
    """One that nothing listened to a moment ago: other clusters of this host have the usual one."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


@contextlib.contextmanager
def several_machines(
    count: int, dashboard: int | None = None
) -> Iterator[tuple[Machines, list[Any]]]:
    """Within ``with``, a cluster of so many machines of one CPU each, and all but the first.

    Drivers run on the first, which takes work as well. ``dashboard``: port of one, for jobs that
    are submitted.
    """
    with pytest.MonkeyPatch.context() as patch:
        for name in ("RAY_ADDRESS", "RAY_AUTH_TOKEN_PATH"):
            patch.delenv(name, raising=False)
        patch.setenv("RAY_AUTH_MODE", "disabled")
        shown = {"include_dashboard": dashboard is not None, "dashboard_port": dashboard}
        # Ray writes its address there as well, and fails on a machine that has no such folder.
        ray_folder = Path(ray._common.utils.get_default_ray_temp_dir())  # type: ignore[no-untyped-call]
        ray_folder.mkdir(exist_ok=True)
        with tempfile.TemporaryDirectory(
            prefix="cdm-", dir="/tmp", ignore_cleanup_errors=True
        ) as place:
            cluster = Machines(Path(place), shown)
            try:
                yield cluster, [cluster.add_machine() for _ in range(count - 1)]
            finally:
                cluster.shutdown()  # type: ignore[no-untyped-call]


class Machines(ray.cluster_utils.Cluster):
    """Each has a folder of its own, as on hosts of their own.

    Where they share one, each unpacks the code of a job anew, under the feet of its driver, and all
    have one fork server.
    """

    def __init__(self, place: Path, head: Mapping[str, Any]) -> None:
        self.place = place
        first = {**self._machine(), **head}
        super().__init__(initialize_head=True, head_node_args=first)
        # As `ray start` does: drivers of jobs that are submitted look for their cluster there.
        ray._private.utils.write_ray_address(self.address, first["temp_dir"])

    def add_machine(self) -> Any:
        return self.add_node(**self._machine())

    def _machine(self) -> dict[str, Any]:
        return {
            "num_cpus": 1,
            "temp_dir": tempfile.mkdtemp(dir=self.place, prefix=""),
            "dashboard_agent_listen_port": free_port(),
            "setup_worker_path": CLIENT,
        }


def processes_on(machine: Any, name: str) -> list[psutil.Process]:
    """What runs on a machine and has ``name`` in its title, such as that of an actor's class."""
    (raylet,) = machine.all_processes["raylet"]
    parents = [psutil.Process(raylet.process.pid)]
    server = str(Path(machine.raylet_socket_name).with_name("fork"))
    parents += [item for item in psutil.process_iter() if server in _command(item)]
    children = [child for parent in parents for child in _children(parent)]
    return [child for child in children if name in " ".join(_command(child))]


def _children(process: psutil.Process) -> list[psutil.Process]:
    try:
        return list(process.children())
    except psutil.Error:  # a fork of the server that has just ended
        return []


def _command(process: psutil.Process) -> list[str]:
    try:
        return list(process.cmdline())
    except psutil.Error:
        return []


@contextlib.contextmanager
def running_driver(
    cluster: Any, resolved: ResolvedJob, place: Path
) -> Iterator[tuple[JobFolder, subprocess.Popen[bytes]]]:
    """Within ``with``, the driver of the job's first attempt; killed at the end.

    As Ray's jobs start it: a fork, once there is a server of forks.
    """
    folder = resolved.folder
    folder.write_job(resolved.to_dict())
    spec = place / f"{resolved.id}.json"
    spec.write_text(json.dumps(resolved.to_dict()))
    place_of_job = Path(cluster.head_node.get_session_dir_path(), "runtime_resources", "x", "job")
    place_of_job.mkdir(parents=True, exist_ok=True)
    (raylet,) = cluster.head_node.all_processes["raylet"]
    ours = {name: value for name, value in os.environ.items() if name.startswith("COLDDIFF_")}
    # With what Ray's worker, from which a job has its environment, has from Ray.
    of_node = psutil.Process(raylet.process.pid).environ() | {"SPT_NOENV": "1"}
    of_node.pop("LD_PRELOAD", None)
    module = ("-m", "colddiff.cluster.driver", str(spec), "--attempt", "1")
    driver = subprocess.Popen(
        [sys.executable, "-P", CLIENT, *module],
        env={**of_node, **ours, "RAY_ADDRESS": cluster.address},
        cwd=place_of_job,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield folder, driver
    finally:
        driver.kill()
        driver.wait()


def await_training(folder: JobFolder, workers: int) -> dict[str, Any]:
    """The note of the newest start, once it trains with as many workers."""

    def trains() -> bool:
        note = newest_start(folder)
        step = int(folder.progress(1).get("step", 0))
        return note.get("world_size") == workers and step > note.get("step", step)

    wait_until(trains, f"a training with {workers} workers")
    return newest_start(folder)


def newest_start(folder: JobFolder) -> dict[str, Any]:
    starts = folder.fencing_tokens(1)
    return folder.fence(1, starts[-1]) if starts else {}
