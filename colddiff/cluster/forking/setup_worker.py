"""Stands in for Ray's program of that name: asks the node's fork server for the worker.

Ray starts it by path for each worker, so it imports nothing but the standard library. A worker that
cannot be a fork is started by Ray's own program, as everywhere else.
"""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

PROGRAM = "default_worker.py"
SOCKET = "--raylet-name="
"""Names a socket of the node; that of the fork server is in the same folder."""
CONTEXT = "--serialized-runtime-env-context="
LANGUAGE = "--language="
JOB, NO_JOB = "RAY_JOB_ID", "ffffffff"
OOM = Path("/proc/self/oom_score_adj")
UNSET = r"\$\{[A-Z0-9_]+\}"
WAIT_S = 60.0
"""Longest wait for a fork: a server that has just started imports first."""


def main(arguments: Sequence[str]) -> None:
    """Becomes a worker, or leaves when a fork has become it."""
    request = worker_request(arguments)
    if request is not None and is_forked(request):
        return
    spec = find_spec("ray")  # does not import it
    assert spec is not None, "Ray has started this program"
    assert spec.origin is not None, "Ray is a package with a file"
    ours = Path(spec.origin).parent / "_private" / "workers" / "setup_worker.py"
    os.execv(sys.executable, [sys.executable, str(ours), *arguments])  # noqa: S606


def worker_request(arguments: Sequence[str]) -> dict[str, Any] | None:
    """What the fork server needs to know of a worker; None for one that is not of this Python."""
    context: dict[str, Any] = {}
    passed: list[str] = []
    for argument in arguments:
        if argument.startswith(CONTEXT):
            context = json.loads(argument.removeprefix(CONTEXT))
        elif argument.startswith(LANGUAGE):
            if argument != f"{LANGUAGE}PYTHON":
                return None
        else:
            passed.append(argument)
    if not passed or Path(passed[0]).name != PROGRAM:  # a flag of the interpreter, or another one
        return None
    python = context.get("py_executable") or sys.executable
    folder = _folder(context.get("command_prefix") or [])
    if python != sys.executable or folder is None or context.get("override_worker_entrypoint"):
        return None
    env = _environment(context.get("env_vars") or {})
    # Ray sets it for this process only: the system kills workers before what holds the node.
    oom = OOM.read_text() if OOM.exists() else ""
    return {"arguments": passed, "env": env, "folder": folder, "oom_score_adj": oom}


def _environment(variables: Mapping[str, str]) -> dict[str, str]:
    """This process's, with what the job sets; values may name variables, as for Ray."""
    before = dict(os.environ)
    try:
        for name, value in variables.items():
            os.environ[name] = re.sub(UNSET, "", os.path.expandvars(value))
        return dict(os.environ)
    finally:  # the fork server is of no job
        os.environ.clear()
        os.environ.update(before)


def _folder(prefix: Sequence[str]) -> str | None:
    """Where the worker runs: ``prefix`` is what stands before its command in a shell."""
    if not prefix:
        return str(Path.cwd())
    return prefix[1] if len(prefix) == 3 and (prefix[0], prefix[2]) == ("cd", "&&") else None


def is_forked(request: dict[str, Any]) -> bool:
    """Whether the node's fork server has taken the request; it is started if there is none."""
    sockets = [a.removeprefix(SOCKET) for a in request["arguments"] if a.startswith(SOCKET)]
    if not sockets:
        return False
    path = Path(sockets[0]).parent / "fork"
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(WAIT_S)
        try:
            try:
                connection.connect(str(path))
            except (FileNotFoundError, ConnectionRefusedError):
                start_server(path)
                connection.connect(str(path))
            # The streams of this process become those of the worker.
            socket.send_fds(connection, [b"f"], [0, 1, 2])
            connection.sendall(json.dumps(request).encode())
            connection.shutdown(socket.SHUT_WR)
            return connection.recv(1) == b"y"
        except OSError:
            return False


def start_server(path: Path) -> None:
    """Starts the fork server and waits until it listens, unless another worker was faster."""
    program = Path(__file__).with_name("server.py")
    log = path.parent.parent / "logs" / "fork_server.log"
    with log.open("ab") as said:
        server = subprocess.Popen(  # noqa: S603  # our own interpreter and program
            [sys.executable, str(program), str(path)],
            # Ray's library reads it once, when it is loaded. Forks are of no job until they get a
            # task of one, like the workers that Ray starts in advance.
            env=os.environ | {JOB: NO_JOB},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=said,
            # In the session of its node, so that what ends the node finds it; its own group, so
            # that what ends one worker with its group does not.
            process_group=0,
        )
    assert server.stdout is not None
    with server.stdout:
        server.stdout.read(1)
    server.returncode = 0  # it outlives this process: no warning that it still runs


if __name__ == "__main__":
    main(sys.argv[1:])
