"""The batch step of a Slurm allocation: Ray on its nodes, one job to its end, and a requeue."""

from __future__ import annotations

import logging
import os
import secrets
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from colddiff.background import in_context
from colddiff.checkpoints.format import Checkpoints
from colddiff.cluster.address import Cluster, probe
from colddiff.cluster.local_cluster import FOREIGN
from colddiff.cluster.ray_jobs import RayJobs
from colddiff.cluster.slurm_node import END
from colddiff.errors import ClusterError, ColddiffError, SpecError, Stopped
from colddiff.jobs.folder import JobFolder
from colddiff.jobs.resolve import ResolvedJob
from colddiff.jobs.status import Status
from colddiff.jobs.submit import bring_to_end

log = logging.getLogger(__name__)

START_S = 180.0
END_S = 15.0
NOTICE_POLL_S = 2.0
STOP_GRACE_S = 600.0
REQUEUED_S = 60.0
"""How long Slurm may take to end a batch step that it has requeued."""


@dataclass(frozen=True, slots=True)
class Allocation:
    """The Slurm allocation that this process is the batch step of."""

    job_id: str
    nodes: int
    notice: threading.Event
    """Set once Slurm has announced that the allocation ends."""

    @classmethod
    def from_environment(cls, env: Mapping[str, str] = os.environ) -> Allocation:
        """The allocation of this process; raises SpecError outside of one."""
        try:
            job_id, nodes = env["SLURM_JOB_ID"], int(env["SLURM_JOB_NUM_NODES"])
        except (KeyError, ValueError):
            raise SpecError(
                "this runs as the batch script of a Slurm job only; "
                "`colddiff slurm JOB --submit` submits one"
            ) from None
        return cls(job_id, nodes, threading.Event())


def run_in_allocation(
    allocation: Allocation,
    resolved: ResolvedJob,
    *,
    show: Callable[[Status], None] = lambda status: None,
    announce: Callable[[str], None] = lambda job_id: None,
) -> int:
    """Brings ``resolved`` to its end on Ray over the allocation; returns its exit code.

    On SIGUSR1 (``sbatch --signal``) or SIGTERM it takes a checkpoint and requeues the Slurm job, if
    this allocation got the job further. A stop by a user or a limit is not requeued.

    Raises ClusterError if Ray does not start on every node; ColddiffError if the allocation ends
    before the job got any further.
    """
    folder = resolved.folder
    before = durable_progress(folder, resolved.verb)
    for number in (signal.SIGUSR1, signal.SIGTERM):
        signal.signal(number, lambda *_: allocation.notice.set())
    try:
        with ray_over_nodes(allocation) as cluster, _stopped_on_notice(allocation, folder):
            code = bring_to_end(resolved, RayJobs(cluster), show=show, announce=announce).exit_code
    except (ClusterError, Stopped) as error:
        if not allocation.notice.is_set():
            raise
        log.info("%s", error)  # nodes that are taken away take the cluster with them
        code = Stopped.exit_code
    if code == 0 or not allocation.notice.is_set():
        return code
    if durable_progress(folder, resolved.verb) <= before:
        raise Stopped(
            f"Slurm job {allocation.job_id} ended before the first checkpoint, so it is not "
            f"requeued; ask for more --time, or a longer --notice, or set a smaller "
            f"checkpoint_every, and submit {resolved.id} again"
        )
    _requeue(allocation, resolved.id)
    return Stopped.exit_code


def durable_progress(folder: JobFolder, verb: str) -> float:
    """How far a later attempt of the job would start; it grows with each allocation that helped.

    A training goes on from its newest checkpoint. The trials of a search have checkpoints of their
    own, so time that it ran for counts.
    """
    if verb == "train":
        return max(Checkpoints.of(folder).steps(), default=0)
    status = folder.status() or Status()
    return status.running_s if verb == "search" else status.step


@contextmanager
def ray_over_nodes(allocation: Allocation) -> Iterator[Cluster]:
    """Within ``with``, a Ray cluster over all nodes of the allocation, with a token of its own.

    Raises ClusterError, naming how many nodes came up and what to check.
    """
    token = secrets.token_hex(32)
    for name in [name for name in os.environ if name.startswith(FOREIGN)]:
        del os.environ[name]
    # Through the environment: no file that all nodes see, and no argument that all users see.
    os.environ |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": token}
    port, dashboard_port = _free_ports(2)
    command = step_command(allocation.nodes, port, dashboard_port)
    step = subprocess.Popen(command, stdin=subprocess.DEVNULL)  # noqa: S603
    try:
        address = f"http://127.0.0.1:{dashboard_port}"
        cluster = Cluster(address, token, forks=True, origin="this allocation")
        _await_nodes(allocation, cluster, step)
        yield cluster
    finally:
        step.send_signal(END)  # srun hands it on to every task
        try:
            step.wait(END_S)
        except subprocess.TimeoutExpired:
            step.kill()
            step.wait()


def step_command(nodes: int, port: int, dashboard_port: int) -> list[str]:
    """The job step that runs Ray: one task on each node, with all that the allocation has there."""
    step = ["srun", f"--nodes={nodes}", f"--ntasks={nodes}", "--ntasks-per-node=1", "--overlap"]
    # The loss of a node is Ray's to handle.
    step += ["--export=ALL", "--cpu-bind=none", "--no-kill", "--kill-on-bad-exit=0", "--wait=0"]
    node = [sys.executable, "-P", "-m", "colddiff.cluster.slurm_node"]
    return [*step, *node, f"--port={port}", f"--dashboard-port={dashboard_port}"]


def _await_nodes(allocation: Allocation, cluster: Cluster, step: subprocess.Popen[bytes]) -> None:
    log.info("starting Ray on %d nodes of Slurm job %s", allocation.nodes, allocation.job_id)
    deadline = time.monotonic() + START_S
    alive = 0
    while alive < allocation.nodes:
        if allocation.notice.is_set():
            raise Stopped("the allocation ends while Ray starts")
        if step.poll() is not None or time.monotonic() > deadline:
            raise ClusterError(
                f"Ray started on {alive} of {allocation.nodes} nodes of Slurm job "
                f"{allocation.job_id}; each needs {sys.executable} with colddiff and Ray: install "
                "it where all nodes see it (a shared folder, or a container)"
            )
        time.sleep(0.5)
        with suppress(ClusterError):
            probe(cluster)
            alive = _alive_nodes(cluster)


def _alive_nodes(cluster: Cluster) -> int:
    """How many nodes Ray counts; 0 while it cannot say."""
    from ray.util.state import list_nodes

    try:
        alive = list_nodes(cluster.address, filters=[("state", "=", "ALIVE")], timeout=5)
    except Exception:  # its own exceptions, those of requests, and of what it parses
        return 0
    return len(alive)


@contextmanager
def _stopped_on_notice(allocation: Allocation, folder: JobFolder) -> Iterator[None]:
    """Within ``with``, a notice requests a stop, after a checkpoint, of whatever attempt runs."""
    ended = threading.Event()

    def hand_on() -> None:
        while not ended.wait(NOTICE_POLL_S):
            if allocation.notice.is_set():
                with suppress(ColddiffError):
                    _request_stop(folder)

    thread = threading.Thread(target=in_context(hand_on), name="slurm notice", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _request_stop(folder: JobFolder) -> None:
    status = folder.status()
    # Not before it has begun: an attempt that is still queued may yet be claimed by another one.
    if status is None or status.finished or folder.stop_requested(status.attempt):
        return
    log.info("the allocation ends: stopping %s with a checkpoint", folder.job_id)
    folder.request_stop(status.attempt, STOP_GRACE_S)


def _requeue(allocation: Allocation, job_id: str) -> None:
    state = _slurm("squeue", "--noheader", "--format=%T", f"--jobs={allocation.job_id}")
    if state != "RUNNING":
        log.info("Slurm job %s is %s: not requeued", allocation.job_id, state.lower() or "ending")
        return
    log.info("requeueing Slurm job %s, which continues %s", allocation.job_id, job_id)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    _slurm("scontrol", "requeue", allocation.job_id)
    time.sleep(REQUEUED_S)  # Slurm ends us by SIGTERM


def _slurm(*command: str) -> str:
    """The output of a command of Slurm's; raises ClusterError with its reason."""
    answer = subprocess.run(  # noqa: S603
        command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL
    )
    if answer.returncode:
        reason = " ".join(answer.stderr.split())
        raise ClusterError(f"{command[0]}: {reason}; submit the same script again with sbatch")
    return answer.stdout.strip()


def _free_ports(count: int) -> list[int]:
    """Ports that are free on this machine, which is the head's."""
    held = [socket.socket() for _ in range(count)]
    try:
        for item in held:
            item.bind(("", 0))
        return [int(item.getsockname()[1]) for item in held]
    finally:
        for item in held:
            item.close()
