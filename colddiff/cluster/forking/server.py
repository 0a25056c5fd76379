"""The fork server of a node: imports what Ray's workers import, once, and forks them from there.

`python server.py SOCKET`, run by path. Importing Ray, torch and what they bring takes three seconds
of CPU in each worker; a fork has it all in a hundredth of one, and shares the memory. What a worker
is, its environment, folder, streams and arguments, comes with the request, and it is refused where
a fork would differ from a process that starts anew (`refusal`): that worker starts by itself.
"""

from __future__ import annotations

import atexit
import fcntl
import gc
import importlib
import importlib.util
import json
import os
import runpy
import select
import signal
import socket
import struct
import sys
import threading
import time
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def _beside(name: str) -> Any:
    """The module of that file beside this one: this program is of no package."""
    spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(name))
    assert spec is not None, "it is a file of Python"
    assert spec.loader is not None, "files of Python have a loader"
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


FORK = _beside("fork.py")
PATH, THREADS = FORK.PATH, FORK.THREADS
MODULES = (
    "ray",
    "threadpoolctl",
    "ray.dashboard.modules.job.job_supervisor",
    "ray._private.workers.default_worker",
    "torch",
    "ray.train.torch",
    "ray.train.v2.api.data_parallel_trainer",
    "ray.tune",
    "PIL.Image",
    "torch._dynamo",  # an optimizer's first use imports it, for a second and more
    "webdataset",
)
"""What workers import, those for the first needs first. Never colddiff: a job brings its own."""
FOR_DRIVERS = (
    "scipy.stats",
    "matplotlib.figure",
    "matplotlib.backends.backend_agg",
    "mlflow.store.tracking.sqlalchemy_store",
)
"""What drivers import as well, and most nodes have none: 2 s of CPU."""
READ_AT_IMPORT = Path(__file__).parents[2] / "tracking" / "mlflow_defaults.py"
"""The variables with which colddiff imports MLflow; by path: a job brings its own colddiff."""
OF_ONE_JOB = {
    "PL_DISABLE_FORK",
    PATH,
    "PYTHONBREAKPOINT",
    "RAY_COLOR_PREFIX",
    "RAY_JOB_ID",
    "RAY_JOB_STOP_WAIT_TIME_S",
    "RAY_WARN_BLOCKING_GET_INSIDE_ASYNC",
    "RAY_worker_niceness",
    "__RAY_WORKER_PROCESS_SETUP_HOOK_ENV_VAR",
}
"""Variables that change nothing in what is imported; any other that differs could."""
OF_DRIVERS = {
    "OLDPWD",
    "PWD",
    "PYTHONUNBUFFERED",
    "RAY_ADDRESS",
    "RAY_JOB_CONFIG_JSON_ENV_VAR",
    "RAY_RAYLET_PID",
    THREADS,  # libraries read it at their import: the fork tells them (`fork.py`)
}
"""More of those, for a process that is no worker; what its shell sets is among them."""
READ_WHEN_USED = ("COLDDIFF_", "RAY_EXPERIMENTAL_NOSET_", "RAY_TRAIN_")
"""Starts of the names of more of those."""
REQUEST_S = 5.0
DRIVERS = ("/dev/nvidia", "/dev/kfd")
LOOKS_EVERY_S = 1.0


class Server:
    """Serves requests between imports: the first workers do not wait for the last module."""

    def __init__(self, listener: socket.socket) -> None:
        self.listener = listener
        self.env = dict(os.environ)
        self.path = sys.path[not sys.flags.safe_path :]  # without the folder of this program
        self.raylet = os.pidfd_open(int(os.environ["RAY_RAYLET_PID"]))
        self.modules, self.for_drivers = list(MODULES), list(FOR_DRIVERS)
        self.files = _Files()
        self.alike: str | None = None

    def run(self) -> None:
        """Imports and serves until the node ends."""
        for name, value in runpy.run_path(str(READ_AT_IMPORT))["DEFAULTS"].items():
            os.environ.setdefault(name, value)  # not in `self.env`: forks have their own
        gc.disable()
        sources: list[Any] = [self.listener, self.raylet]
        while True:
            waiting, _, _ = select.select(sources, [], [], 0 if self.modules else None)
            if self.raylet in waiting:
                return
            if self.listener in waiting:
                self._answer()
            elif self.modules:
                self._import_next()

    def _import_next(self) -> None:
        name = self.modules.pop(0)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                importlib.import_module(name)
            if name == "ray":
                _draw_elsewhere()
        except ImportError as error:  # workers that need it will say so
            _say(f"not imported: {error}")
        self.alike = alike_forks()
        if not self.modules:
            gc.freeze()  # what has been imported stays: forks never look through it

    def _answer(self) -> None:
        connection, _ = self.listener.accept()
        with connection:
            connection.settimeout(REQUEST_S)
            try:
                if _user_of(connection) != os.getuid() or not connection.recv(1, socket.MSG_PEEK):
                    return  # a stranger, or one that only looked whether anybody listens
                request, streams = _received(connection)
            except (OSError, ValueError, struct.error) as error:
                _say(f"a request that could not be read: {error}")
                return
            if "module" in request:
                self.modules, self.for_drivers = [*self.modules, *self.for_drivers], []
                while self.modules:  # else the driver would import the same beside this process
                    self._import_next()
            try:
                reason = (
                    refusal(request, self.env) or self.files.changed() or unsafe() or self.alike
                )
                if reason is not None:
                    _say(f"not forked: {reason}")
                    connection.sendall(b"n")
                elif os.fork() == 0:
                    kept = [*streams]
                    streams.clear()
                    raise _Forked(request, kept, connection.dup())
            except OSError as error:
                _say(f"not forked: {error}")
            finally:
                for stream in streams:
                    os.close(stream)


class _Forked(Exception):
    """Raised in a fork, to leave the server behind: the request, its streams, its connection."""


def refusal(request: Mapping[str, Any], env: Mapping[str, str]) -> str | None:
    """Why a fork of a process with ``env`` would not be what the request asks for; None if none."""
    asked: Mapping[str, str] = request["env"]
    differing = {name for name in asked.keys() | env.keys() if asked.get(name) != env.get(name)}
    harmless = OF_ONE_JOB | (OF_DRIVERS if request.get("module") else set())
    others = {name for name in differing - harmless if not name.startswith(READ_WHEN_USED)}
    settable = asked.get(THREADS, "").isdecimal() and "threadpoolctl" in sys.modules
    if THREADS in differing and not settable:
        others.add(THREADS)
    if others:
        return f"other variables: {', '.join(sorted(others))}"
    base = FORK.entries(env.get(PATH, ""))
    paths = FORK.entries(asked.get(PATH, ""))
    if paths[len(paths) - len(base) :] != base:
        return f"another PYTHONPATH: {':'.join(paths)}"
    for folder in paths[: len(paths) - len(base)]:
        for entry in Path(folder).iterdir() if Path(folder).is_dir() else ():
            if entry.name.partition(".")[0] in sys.modules:
                return f"{entry} would be imported in place of what is imported"
    return None


def unsafe() -> str | None:
    """Why this process must not be forked; None if it may be."""
    if threading.active_count() > 1:
        return f"a thread runs: {threading.enumerate()[-1].name}"
    for number in Path("/proc/self/fd").iterdir():
        try:
            name = str(number.readlink())
        except OSError:  # the one that lists them
            continue
        if name.startswith(DRIVERS):
            return f"{name} is open, and a GPU's context does not survive a fork"
    return None


def alike_forks() -> str | None:
    """Whether forks of this process would draw the same random numbers; None if they would not.

    Ray names objects and placement groups by them. Its library seeds its generator at the first
    draw, which therefore must not be here.
    """
    if "ray" not in sys.modules:
        return None
    drawn = [_drawn_in_a_fork() for _ in range(2)]
    return "forks would draw the same random numbers" if drawn[0] == drawn[1] else None


def _drawn_in_a_fork() -> bytes:
    read, write = os.pipe()
    if os.fork() == 0:
        os.write(write, sys.modules["ray"].ObjectRef.from_random().binary())
        os._exit(0)
    os.close(write)
    with open(read, "rb") as drawn:  # noqa: PTH123  # a descriptor
        return drawn.read()


def _draw_elsewhere() -> None:
    """Ray draws an id for each class of actors that is imported: from the system, for our part."""
    actor = sys.modules["ray.actor"]
    ids: Any = actor.ActorClassID

    class ActorClassID(ids):  # type: ignore[misc]
        @classmethod
        def from_random(cls) -> Any:
            return ids(os.urandom(ids.size()))

    actor.ActorClassID = ActorClassID  # type: ignore[attr-defined]


class _Files:
    """Whether a file of an imported module has changed: the package was upgraded or edited."""

    def __init__(self) -> None:
        self._stamps: dict[str, tuple[int, int]] = {}
        self._looked = 0.0
        self._found: str | None = None

    def changed(self) -> str | None:
        """Which file has changed; once one has, that is how it stays."""
        now = time.monotonic()
        if self._found is None and now - self._looked >= LOOKS_EVERY_S:
            self._looked = now
            self._found = self._look()
        return self._found

    def _look(self) -> str | None:
        for name, module in list(sys.modules.items()):
            file = getattr(module, "__file__", None)
            if not file or not Path(file).is_absolute():  # some modules are made up
                continue
            try:
                status = Path(file).stat()
            except OSError:
                return f"{file} is gone"
            stamp = (status.st_mtime_ns, status.st_size)
            if self._stamps.setdefault(name, stamp) != stamp:
                return f"{file} has changed"
        return None


def _received(connection: socket.socket) -> tuple[dict[str, Any], list[int]]:
    """The request and the three streams that came with it; ValueError where it is none."""
    head, streams, _, _ = socket.recv_fds(connection, 4, 3)
    text, (size,) = b"", struct.unpack("I", head)
    while len(text) < size and (part := connection.recv(1 << 16)):
        text += part
    request = json.loads(text)
    if len(streams) != 3 or not isinstance(request, dict):
        raise ValueError("it is not one of ours")
    return request, streams


def _user_of(connection: socket.socket) -> int:
    size = struct.calcsize("3i")
    found = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size)
    _, user, _ = struct.unpack("3i", found)
    return int(user)


def _say(text: str) -> None:
    sys.stderr.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {text}\n")
    sys.stderr.flush()


def listening(path: Path) -> socket.socket | None:
    """A socket that listens at ``path``; None where another server does."""
    listener = socket.socket(socket.AF_UNIX)
    with path.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if path.exists():
            with socket.socket(socket.AF_UNIX) as other:
                if other.connect_ex(str(path)) == 0:
                    listener.close()
                    return None
            path.unlink()  # of a server that was killed
        listener.bind(str(path))
        path.chmod(0o600)
        listener.listen(128)
    return listener


def main(path: Path) -> None:
    """Serves at ``path`` until the node ends; returns at once where another server does."""
    listener = listening(path)
    if listener is None:
        return  # closes standard output, for which `start_server` waits
    with listener:
        os.write(1, b"y")
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 1)
        os.close(null)
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # forks that end are not waited for
        server, ending = Server(listener), FORK.Ending()
        atexit.register(ending)
        try:
            server.run()
            return
        except _Forked as fork:
            request, streams, connection = fork.args
        os.close(server.raylet)
    FORK.become(request, streams, connection, server.env, server.path, ending)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
