"""Finds all processes of one local cluster, by an environment marker, and ends them."""

from __future__ import annotations

import getpass
import os
import shlex
import sys
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from colddiff.machine.credentials import masked

PROGRAM = "colddiff"
POLL_S = 0.05
KILL_S = 10.0
"""How long a killed process may take to exit before it counts as a survivor."""
ENDED = (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD)


@dataclass(frozen=True, slots=True)
class Process:
    """A running process; never equal to a later one with the same pid."""

    handle: psutil.Process
    """Compares and hashes by pid and creation time."""
    parent: int = field(compare=False)
    command: str = field(compare=False)

    @property
    def pid(self) -> int:
        """Its process id, which the system may reuse once it has ended."""
        return int(self.handle.pid)


def processes() -> dict[int, Process]:
    """All visible running processes, by pid; zombies are not running."""
    found = (process(pid) for pid in psutil.pids())
    return {item.pid: item for item in found if item is not None}


def this_process() -> dict[str, Any]:
    """``host`` and ``pid`` of the calling process, as claims and statuses record them."""
    return {"host": os.uname().nodename, "pid": os.getpid()}


def this_user() -> str:
    """Name of who runs the calling process; its number where it has no name."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return str(os.getuid())


def this_command() -> str | None:
    """What was typed to start this process, without credentials; None for another program's."""
    if Path(sys.argv[0]).name != PROGRAM:
        return None
    return masked(shlex.join([PROGRAM, *sys.argv[1:]]))


def this_claimant() -> dict[str, Any]:
    """``this_process``, the ``user`` who runs it and its ``command``: who claims an attempt."""
    command = this_command()
    return {"user": this_user(), **({"command": command} if command else {}), **this_process()}


def process(pid: int) -> Process | None:
    """The process with that pid, if it is running."""
    if pid <= 0:
        return None
    try:
        handle = psutil.Process(pid)
        known = handle.as_dict(["status", "ppid", "cmdline"])
    except psutil.Error:
        return None
    if known["status"] in ENDED:
        return None
    return Process(handle, known["ppid"] or 0, " ".join(known["cmdline"] or ()))


def marked_processes(marker: str, session: int | None) -> set[Process]:
    """Processes with ``marker`` (``NAME=value``) in their environment, those in ``session`` whose
    environment is hidden, and all descendants of both; never this process.

    Each criterion alone misses some: processes that set their title overwrite their environment
    (Ray's do, to ``ray::...``), drivers have their own session, and orphans have no parent.
    """
    table = processes()
    found = {pid for pid, item in table.items() if _belongs(item, marker, session)}
    children: dict[int, list[int]] = {}
    for item in table.values():
        children.setdefault(item.parent, []).append(item.pid)
    grown = list(found)
    while grown:
        below = [pid for pid in children.get(grown.pop(), []) if pid not in found]
        found.update(below)
        grown += below
    return {table[pid] for pid in found - {os.getpid(), 1}}


def terminate_all(find: Callable[[], Iterable[Process]], grace_s: float) -> set[Process]:
    """Ends the processes that ``find`` returns: SIGTERM, then SIGKILL after ``grace_s`` seconds.

    ``find`` is called repeatedly, so that processes they start in the meantime are ended too.
    Returns survivors.
    """
    known: set[Process] = set()
    for end, patience_s in ((psutil.Process.terminate, grace_s), (psutil.Process.kill, KILL_S)):
        signalled: set[Process] = set()
        deadline = time.monotonic() + patience_s
        while True:
            known = {item for item in known.union(find()) if alive(item)}
            if not known:
                return known
            for item in known - signalled:
                # psutil first checks that the pid has not been reused.
                with suppress(psutil.Error):
                    end(item.handle)
            signalled |= known
            if time.monotonic() > deadline:
                break
            # Also collects the exit status of our own children, which would stay zombies.
            psutil.wait_procs([item.handle for item in known], timeout=POLL_S)
    return known


def alive(item: Process) -> bool:
    """Whether this same process (not another with its pid) is still running; zombies are not."""
    try:
        return item.handle.is_running() and item.handle.status() not in ENDED
    except psutil.Error:
        return False


def _belongs(item: Process, marker: str, session: int | None) -> bool:
    try:
        environment = item.handle.environ()
    except psutil.Error:
        environment = None
    name, _, value = marker.partition("=")
    if environment and environment.get(name) == value:
        return True
    # macOS shows no environment of the system's own programs.
    hidden = item.command.startswith("ray") or environment == {}
    return hidden and session is not None and _session(item.pid) == session


def _session(pid: int) -> int | None:
    try:
        return os.getsid(pid)
    except OSError:
        return None
