"""`python -m colddiff.cluster.slurm_node`: Ray on one node of a Slurm allocation, as a step's task.

Ray's own `ray symmetric-run` is not used: it recognises the head by its address, refuses a node on
which another Ray runs, ends with `ray stop`, which kills every Ray process on the machine, and
reports success where Ray does not start.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from colddiff.cluster.forking import RAY_START
from colddiff.machine.processes import process

END = signal.SIGUSR1
"""What the batch step sends through srun once the job has ended."""
TAIL_BYTES = 1500
PLACE, PREFIX = "/tmp", "cds-"  # noqa: S108  # folders of our own in it, 0700, with random names


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs Ray on this node; returns 0 once it was told to end, 1 if Ray ended by itself."""
    parser = argparse.ArgumentParser(prog="colddiff.cluster.slurm_node")
    parser.add_argument("--port", type=int, required=True, help="of Ray's control store")
    parser.add_argument("--dashboard-port", type=int, required=True)
    options = parser.parse_args(arguments)
    env = dict(os.environ)
    _remove_leftovers()
    # Short: Ray's sockets live in it. One for each node, as nodes may share a machine.
    folder = Path(tempfile.mkdtemp(prefix=f"{PREFIX}{os.getpid()}-", dir=PLACE))
    command = start_command(env, folder / "r", (options.port, options.dashboard_port))
    try:
        with (folder / "start.log").open("wb") as output:
            ray = subprocess.Popen(  # noqa: S603  # our own interpreter and arguments
                command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, cwd=folder
            )
        ended = _ended_on_request(ray, env)
        if not ended:
            tail = (folder / "start.log").read_bytes()[-TAIL_BYTES:].decode(errors="replace")
            sys.stderr.write(f"Ray ended on {_name(env)} ({ray.returncode}):\n{tail}\n")
            if _is_head(env):
                _end_step(env)
        return 0 if ended else 1
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def start_command(env: Mapping[str, str], temp_dir: Path, ports: tuple[int, int]) -> list[str]:
    """The `ray start` of this node: the head on the allocation's first one, with what Slurm gave.

    ``ports`` are those of the head: control store, dashboard. Raises KeyError where
    ``env`` is not that of a task of a Slurm step.
    """
    port, dashboard_port = ports
    options: dict[str, object] = {
        "num-cpus": env["SLURM_CPUS_ON_NODE"],
        "num-gpus": env.get("SLURM_GPUS_ON_NODE") or 0,  # not those of other jobs on this machine
        "temp-dir": temp_dir,
        "min-worker-port": 0,
        "max-worker-port": 0,
        "dashboard-agent-listen-port": 0,
    }
    if _is_head(env):
        options |= {
            "port": port,
            "include-dashboard": "true",
            "dashboard-host": "127.0.0.1",  # the batch step is on this node
            "dashboard-port": dashboard_port,
        }
    else:
        # Where srun runs, as this node sees it: a name may resolve to 127.0.1.1 on its own machine.
        options["address"] = f"{env['SLURM_LAUNCH_NODE_IPADDR']}:{port}"
    head = ["--head"] if _is_head(env) else []
    named = [f"--{name}={value}" for name, value in options.items()]
    return [*RAY_START, *head, "--block", "--disable-usage-stats", *named]


def _ended_on_request(ray: subprocess.Popen[bytes], env: Mapping[str, str]) -> bool:
    """Waits for Ray's end; whether we were told to end it. A notice is handed on to the batch."""
    told: list[int] = []

    def end(number: int, frame: object) -> None:
        told.append(number)
        ray.kill()

    def notice(number: int, frame: object) -> None:
        # Slurm tells the steps of a preempted job, but not always its batch script. Ray has got the
        # same signal, and drains this node.
        subprocess.Popen(  # noqa: S603
            ["scancel", "--batch", "--signal=USR1", env["SLURM_JOB_ID"]],  # noqa: S607
            stdin=subprocess.DEVNULL,
        )

    signal.signal(END, end)
    signal.signal(signal.SIGTERM, notice)
    ray.wait()
    return bool(told)


def _remove_leftovers() -> None:
    """Removes folders of tasks of ours that Slurm ended by SIGKILL on this machine."""
    for folder in Path(PLACE).glob(f"{PREFIX}*-*"):
        number = folder.name.removeprefix(PREFIX).partition("-")[0]
        with suppress(OSError):
            ours = folder.stat().st_uid == os.getuid() and number.isdigit()
            if ours and process(int(number)) is None:
                shutil.rmtree(folder, ignore_errors=True)


def _end_step(env: Mapping[str, str]) -> None:
    """Ends the step on all nodes: without a head the others would wait for one."""
    step = f"{env['SLURM_JOB_ID']}.{env['SLURM_STEP_ID']}"
    subprocess.run(["scancel", step], stdin=subprocess.DEVNULL, check=False)  # noqa: S603, S607


def _is_head(env: Mapping[str, str]) -> bool:
    return env["SLURM_NODEID"] == "0"


def _name(env: Mapping[str, str]) -> str:
    return env.get("SLURMD_NODENAME") or os.uname().nodename


if __name__ == "__main__":
    sys.exit(main())
