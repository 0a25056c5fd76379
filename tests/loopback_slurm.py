"""A Slurm cluster of two nodes on this machine, of the system's packages, with its own munge."""

from __future__ import annotations

import os
import secrets
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.kills import PATIENCE_S, wait_until
from tests.system import require

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "scontrol", "squeue", "scancel")
NODES = ("n1", "n2")
CONF = """\
ClusterName=colddiff-test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
AuthType=auth/munge
CredType=cred/munge
# A requeued job waits for its old credential to expire: 5 s instead of 2 minutes.
AuthInfo=socket={folder}/socket/munge,cred_expire=5
SlurmUser=root
SlurmdUser=root
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool/%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerType=sched/builtin
SchedulerParameters=sched_interval=1,sched_min_interval=0,batch_sched_delay=1
SwitchType=switch/none
MpiDefault=none
ReturnToService=2
KillWait=5
# Two CPUs each, whatever this machine has.
SlurmdParameters=config_overrides
NodeName=n[1-2] NodeHostname={host} NodeAddr=127.0.0.1 Port=[{ports[1]}-{ports[2]}] CPUs=2
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


@dataclass(frozen=True)
class LoopbackSlurm:
    """A running Slurm cluster; ``env`` has what its clients need."""

    folder: Path
    env: dict[str, str]

    def command(self, *words: str) -> str:
        """The output of a command of Slurm's; the test fails with its reason."""
        answer = subprocess.run(words, env=self.env, capture_output=True, text=True, check=False)
        assert answer.returncode == 0, answer.stderr
        return answer.stdout.strip()

    def show(self, job: str) -> dict[str, str]:
        """What Slurm knows about a job, such as JobState, Restarts and ExitCode."""
        words = self.command("scontrol", "--oneliner", "show", "job", job).split()
        return dict(word.split("=", 1) for word in words if "=" in word)

    def wait(self, job: str) -> dict[str, str]:
        """The job once it has ended for good."""
        deadline = time.monotonic() + PATIENCE_S
        while (found := self.show(job))["JobState"] in ("PENDING", "RUNNING", "COMPLETING"):
            assert time.monotonic() < deadline, found
            time.sleep(0.3)
        return found


@contextmanager
def running_slurm(folder: Path) -> Iterator[LoopbackSlurm]:
    """A Slurm cluster that ends with the block; its folder's path must be short."""
    require(*PROGRAMS)
    if os.geteuid() != 0:
        pytest.skip("a Slurm cluster of one's own needs root")
    for name, mode in (("socket", 0o711), ("munge", 0o700), ("state", 0o700), ("spool", 0o755)):
        (folder / name).mkdir(mode=mode)
        (folder / name).chmod(mode)
    key = folder / "munge" / "key"
    key.write_bytes(secrets.token_bytes(128))
    key.chmod(0o600)
    conf = folder / "slurm.conf"
    host = socket.gethostname().partition(".")[0]
    conf.write_text(CONF.format(folder=folder, host=host, ports=_three_ports_in_a_row()))
    daemons = [_munged(folder), ["slurmctld", "-D", "-f", str(conf)]]
    daemons += [["slurmd", "-D", "-f", str(conf), "-N", node] for node in NODES]
    slurm = LoopbackSlurm(folder, {**os.environ, "SLURM_CONF": str(conf)})
    running: list[subprocess.Popen[bytes]] = []
    try:
        for daemon in daemons:
            running.append(_start(daemon, slurm.env))
            if daemon[0] == "munged":
                wait_until(lambda: (folder / "socket" / "munge").exists(), "munged")
        wait_until(lambda: _idle_nodes(slurm) == len(NODES), "two idle nodes")
        yield slurm
    finally:
        # Else the steps of a test that failed would outlive the daemons that can end them.
        subprocess.run(["scancel", "--user=root"], env=slurm.env, check=False)
        with suppress(AssertionError):
            wait_until(lambda: not _jobs(slurm), "the end of all jobs")
        for process in reversed(running):
            process.terminate()
        for process in running:
            with suppress(subprocess.TimeoutExpired):
                process.wait(10)
            process.kill()
            process.wait()


def _munged(folder: Path) -> list[str]:
    files = {
        "key-file": "munge/key",
        "seed-file": "munge/seed",
        "log-file": "munge/log",
        "pid-file": "socket/pid",
        "socket": "socket/munge",
    }
    # A test's folder may lie in one that others can write to, which munged refuses.
    options = [f"--{name}={folder / path}" for name, path in files.items()]
    return ["munged", "--foreground", "--force", *options]


def _start(daemon: list[str], env: dict[str, str]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        daemon,
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def _jobs(slurm: LoopbackSlurm) -> str:
    """The jobs that are queued, running or ending; empty without an answer, too."""
    answer = subprocess.run(
        ["squeue", "--noheader"], env=slurm.env, capture_output=True, text=True, check=False
    )
    return answer.stdout.strip()


def _idle_nodes(slurm: LoopbackSlurm) -> int:
    answer = subprocess.run(
        ["sinfo", "--noheader", "--Node", "--format=%t"],
        env=slurm.env,
        capture_output=True,
        text=True,
        check=False,
    )
    return answer.stdout.split().count("idle")


def _three_ports_in_a_row() -> list[int]:
    """Free ports, of which slurm.conf can name the last two as a range."""
    for first in range(20500, 29000, 7):
        held = [socket.socket() for _ in range(3)]
        try:
            for offset, item in enumerate(held):
                item.bind(("", first + offset))
        except OSError:
            continue
        finally:
            for item in held:
                item.close()
        return [first, first + 1, first + 2]
    raise AssertionError("no three free ports in a row")
