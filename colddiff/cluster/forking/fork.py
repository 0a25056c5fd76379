"""What a fork of the fork server becomes: the process that a request describes.

Loaded by its path, like the server, so that it is of no package that a job may bring.
"""

from __future__ import annotations

import ctypes
import gc
import importlib
import os
import runpy
import signal
import socket
import struct
import sys
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

PATH = "PYTHONPATH"
THREADS = "OMP_NUM_THREADS"


class Ending:
    """Ends a process that has done all; taking its modules apart would take 0.4 s of CPU.

    Registered with ``atexit`` before anything is imported, so that it is called last: after threads
    and whatever waits for the end of the interpreter.
    """

    def __init__(self) -> None:
        self.code = 0
        """With which it ends."""
        self.client: socket.socket | None = None
        """Who is told the code."""

    def __call__(self) -> None:
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError, ValueError, AttributeError):  # closed, or there is none
                stream.flush()
        ctypes.CDLL(None).fflush(None)  # what libraries in C have printed
        if self.client is not None:
            with suppress(OSError):
                self.client.sendall(struct.pack("i", self.code & 0xFF))
        os._exit(self.code & 0xFF)


def become(
    request: Mapping[str, Any],
    streams: Sequence[int],
    connection: socket.socket,
    server_env: Mapping[str, str],
    server_path: Sequence[str],
    ending: Ending,
) -> None:
    """Makes this process what the request describes, and runs its program.

    ``server_env`` and ``server_path`` are the variables and ``sys.path`` that it was forked with.
    Its end is that of the interpreter, with all that waits for it, and then ``ending``.
    """
    os.setpgid(0, 0)
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    connection.sendall(b"y")
    if request["oom_score_adj"]:
        Path("/proc/self/oom_score_adj").write_text(request["oom_score_adj"])
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    os.environ.clear()
    os.environ.update(request["env"])
    os.chdir(request["folder"])
    module, sys.argv = request.get("module"), list(request["arguments"])
    own = [] if module or sys.flags.safe_path else [str(Path(sys.argv[0]).parent)]
    rest = [entry for entry in server_path if entry not in entries(server_env.get(PATH, ""))]
    sys.path[:] = list(dict.fromkeys([*own, *entries(os.environ.get(PATH, "")), *rest]))
    importlib.invalidate_caches()
    if "numpy" in sys.modules:
        sys.modules["numpy"].random.seed()  # else all forks would draw the same numbers
    _count_threads_as_ray_does()
    gc.enable()
    ending.code = 1  # unless it comes to its end
    try:
        if module:
            if (threads := os.environ.get(THREADS)) != server_env.get(THREADS):
                _set_threads(int(threads or 0))
            sys.argv.insert(0, "")  # which becomes its file
            ending.client = connection
            _tie_to(connection)
            runpy.run_module(module, run_name="__main__", alter_sys=True)
        else:
            connection.close()
            runpy.run_path(sys.argv[0], run_name="__main__")
        ending.code = 0
    except SystemExit as end:
        ending.code = end.code if isinstance(end.code, int) else int(end.code is not None)
        raise


def _tie_to(client: socket.socket) -> None:
    """Ties this process to the client that stands for it where it was started."""
    client.settimeout(None)
    client.sendall(struct.pack("i", os.getpid()))
    if client.recv(1) != b"g":
        sys.exit(1)  # it has ended meanwhile
    threading.Thread(target=_end_with, args=(client,), daemon=True).start()
    if os.environ.get("PYTHONUNBUFFERED"):
        sys.stdout.reconfigure(write_through=True)  # type: ignore[union-attr]


def _end_with(client: socket.socket) -> None:
    """Ends this process when its client has ended, which stands for it where it was started."""
    with suppress(OSError):
        client.recv(1)
    os.kill(os.getpid(), signal.SIGKILL)


def _set_threads(count: int) -> None:
    """What numpy, SciPy and torch would have read in a new process."""
    sys.modules["threadpoolctl"].threadpool_limits(count)
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(count)


def _count_threads_as_ray_does() -> None:
    """Ray sets OMP_NUM_THREADS when it knows a worker's CPUs; torch reads it at its import only."""
    from ray._private import utils

    given = utils.set_omp_num_threads_if_unset

    def set_threads() -> bool:
        is_set = bool(given())
        if is_set and "torch" in sys.modules:
            sys.modules["torch"].set_num_threads(int(os.environ[THREADS]))
        return is_set

    utils.set_omp_num_threads_if_unset = set_threads


def entries(python_path: str) -> list[str]:
    """The folders that the variable names."""
    return [entry for entry in python_path.split(os.pathsep) if entry]
