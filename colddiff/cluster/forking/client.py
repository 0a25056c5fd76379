"""Asks the fork server of a node of Ray for a process, and starts it as usual where it says no.

Run by path, and soon something else, so it imports nothing but the standard library.
`python client.py default_worker.py ...` stands in for Ray's `setup_worker.py` and leaves when a
fork has become the worker. `python client.py -m MODULE ...` is as `python -m MODULE ...`: it hands
signals on, and ends as the fork does.
"""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NoReturn

PROGRAM = "default_worker.py"
SOCKET = "--raylet-name"
"""Names a socket of the node; that of the fork server is in the same folder."""
HANDED_ON = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
CONTEXT = "--serialized-runtime-env-context="
LANGUAGE = "--language="
NO_JOB = "ffffffff"
OOM = Path("/proc/self/oom_score_adj")
UNSET = r"\$\{[A-Z0-9_]+\}"
WAIT_S = 60.0
"""Longest wait for a fork: a server that has just started imports first."""


def main(arguments: Sequence[str]) -> None:
    """Becomes what is asked for, or leaves when a fork has become it."""
    if arguments[0] == "-m":
        run_module(arguments)
    request = worker_request(arguments)
    if request is not None:
        path = socket_of(request["arguments"])
        if asked(request, path, begin=True) is not None:
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
    return {"arguments": passed, "env": env, "folder": folder, "oom_score_adj": _oom_score_adj()}


def _oom_score_adj() -> str:
    """Of this process alone: Ray lets the system kill workers before what holds the node."""
    return OOM.read_text() if OOM.exists() else ""


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


def run_module(arguments: Sequence[str]) -> NoReturn:
    """Ends as the module's process does."""
    name, *passed = arguments[1:]
    request = {
        "module": name,
        "arguments": passed,
        "env": dict(os.environ),
        "folder": str(Path.cwd()),
        "oom_score_adj": _oom_score_adj(),
    }
    try:
        # A server that began here would have the environment of this job.
        fork = asked(request, socket_of_job(), begin=False)
    except OSError:
        fork = None
    if fork is None:
        os.execv(sys.executable, [sys.executable, "-P", *arguments])  # noqa: S606
    handed: list[int] = []

    def hand_on(number: int, frame: object) -> None:
        handed.append(number)
        with suppress(ProcessLookupError):  # it has just ended, which is read below
            os.kill(pid, number)

    fork.settimeout(None)
    (pid,) = struct.unpack("i", _exactly(fork, 4))
    for number in HANDED_ON:
        signal.signal(number, hand_on)
    fork.sendall(b"g")  # it begins when no signal can pass it by
    ended = _exactly(fork, 4)
    if ended:
        os._exit(struct.unpack("i", ended)[0])
    by = handed[-1] if handed else signal.SIGKILL  # nobody else is told what has killed it
    if by != signal.SIGKILL:
        signal.signal(by, signal.SIG_DFL)
    os.kill(os.getpid(), by)
    raise AssertionError("a signal that ends this process did not")


def _exactly(connection: socket.socket, count: int) -> bytes:
    """So many bytes; fewer at the end."""
    found = b""
    while len(found) < count and (part := connection.recv(count - len(found))):
        found += part
    return found


def socket_of_job() -> Path | None:
    """Where the fork server of the node listens that this process runs a job on; None if on none.

    Ray unpacks a job in a folder of the node, and runs its driver there. It takes from a driver's
    environment what would name the node.
    """
    folder = Path.cwd()
    if folder.parent.parent.name != "runtime_resources":
        return None
    return folder.parents[2] / "sockets" / "fork"


def socket_of(arguments: Sequence[str]) -> Path | None:
    """Where the fork server of a node listens, by a command line that names a socket of it."""
    for argument in arguments:
        name, _, value = argument.partition("=")
        if name == SOCKET:
            return Path(value).parent / "fork"
    return None


def asked(request: Mapping[str, Any], path: Path | None, *, begin: bool) -> socket.socket | None:
    """The connection to what has become a fork; None if the server says no.

    Or where there is none and ``begin`` does not allow to start one.
    """
    if path is None:
        return None
    connection = socket.socket(socket.AF_UNIX)
    connection.settimeout(WAIT_S)
    try:
        try:
            connection.connect(str(path))
        except (FileNotFoundError, ConnectionRefusedError):
            if not begin:
                raise
            start_server(path)
            connection.connect(str(path))
        text = json.dumps(request).encode()
        # The streams of this process become those of the fork.
        socket.send_fds(connection, [struct.pack("I", len(text))], [0, 1, 2])
        connection.sendall(text)
        if connection.recv(1) == b"y":
            return connection
    except OSError:
        pass
    connection.close()
    return None


def start_server(path: Path) -> None:
    """Starts the fork server and waits until it listens, unless another worker was faster."""
    program = Path(__file__).with_name("server.py")
    log = path.parent.parent / "logs" / "fork_server.log"
    with log.open("ab") as said:
        server = subprocess.Popen(  # noqa: S603  # our own interpreter and program
            [sys.executable, str(program), str(path)],
            # Ray's library reads it once, when it is loaded. Forks are of no job until they get a
            # task of one, like the workers that Ray starts in advance.
            env=os.environ | {"RAY_JOB_ID": NO_JOB},
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
