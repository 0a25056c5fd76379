"""The processes of one cluster, found without trusting names, and ended without leaving any."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

PROC = Path("/proc")
POLL_S = 0.05


@dataclass(frozen=True, slots=True)
class Process:
    """A running process; ``pid`` and ``started`` together are never used twice."""

    pid: int
    parent: int
    session: int
    started: str
    command: str


def processes() -> dict[int, Process]:
    """All running processes that can be seen, by pid; zombies are not running."""
    if not (PROC / "self" / "stat").exists():
        return _from_ps()
    found = (_from_proc(int(entry.name)) for entry in PROC.iterdir() if entry.name.isdigit())
    return {process.pid: process for process in found if process is not None}


def process(pid: int) -> Process | None:
    """The process of that number, if it runs."""
    if (PROC / "self" / "stat").exists():
        return _from_proc(pid)
    return _from_ps().get(pid)


def marked_processes(marker: str, session: int | None) -> set[Process]:
    """Processes with ``marker`` (``NAME=value``) in their environment, those in ``session`` that
    hide theirs, and all that any of them started; never this process.

    Each way alone misses some: what sets its title overwrites its environment (Ray's do, to
    ``ray::...``), drivers have a session of their own, and an orphan is nobody's child.
    """
    table = processes()
    found = {
        pid
        for pid, item in table.items()
        if _marked(pid, marker) or (item.session == session and _hides_environment(item))
    }
    children: dict[int, list[int]] = {}
    for item in table.values():
        children.setdefault(item.parent, []).append(item.pid)
    grown = list(found)
    while grown:
        below = [pid for pid in children.get(grown.pop(), []) if pid not in found]
        found.update(below)
        grown += below
    return {table[pid] for pid in found - {os.getpid(), 0, 1}}


def end_all(find: Callable[[], Iterable[Process]], grace_s: float) -> set[Process]:
    """Ends what ``find`` returns, politely and after ``grace_s`` by force; returns survivors.

    What it starts or leaves behind meanwhile is found again and ended too.
    """
    known: set[Process] = set()
    for number, patience_s in ((signal.SIGTERM, grace_s), (signal.SIGKILL, 10.0)):
        signalled: set[Process] = set()
        deadline = time.monotonic() + patience_s
        while True:
            known |= set(find())
            known = {item for item in known if alive(item)}
            if not known:
                return known
            for item in known - signalled:
                _signal(item, number)
            signalled |= known
            if time.monotonic() > deadline:
                break
            time.sleep(POLL_S)
    return known


def alive(item: Process) -> bool:
    """Whether this very process still runs, not another of the same number."""
    _reap(item.pid)
    now = process(item.pid)
    return now is not None and now.started == item.started


def _signal(item: Process, number: int) -> None:
    try:
        os.kill(item.pid, number)
    except (ProcessLookupError, PermissionError):
        return


def _reap(pid: int) -> None:
    # A child of ours that ended stays a zombie until somebody asks for its exit status.
    try:
        os.waitpid(pid, os.WNOHANG)
    except (ChildProcessError, ProcessLookupError):
        return


def _marked(pid: int, marker: str) -> bool:
    try:
        environment = (PROC / str(pid) / "environ").read_bytes()
    except OSError:
        return False
    return marker.encode() in environment.split(b"\0")


def _hides_environment(item: Process) -> bool:
    return item.command.startswith("ray") or not PROC.exists()


def _from_proc(pid: int) -> Process | None:
    try:
        text = (PROC / str(pid) / "stat").read_text()
        command = (
            (PROC / str(pid) / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        )
    except OSError:
        return None
    # The name in parentheses may itself hold spaces and parentheses.
    state, parent, _, session, *rest = text.rpartition(")")[2].split()
    if state in "ZX":
        return None
    return Process(pid, int(parent), int(session), rest[15], command)


def _from_ps() -> dict[int, Process]:
    # Where there is no /proc the process group stands in for the session: ps cannot tell it.
    lines = subprocess.run(
        ["ps", "-A", "-ww", "-o", "pid=,ppid=,pgid=,stat=,lstart=,command="],  # noqa: S607
        capture_output=True,
        text=True,
        check=False,
    ).stdout.splitlines()
    found = {}
    for line in lines:
        pid, parent, group, state, *rest = line.split(maxsplit=9)
        if not state.startswith("Z"):
            found[int(pid)] = Process(
                int(pid), int(parent), int(group), " ".join(rest[:5]), " ".join(rest[5:])
            )
    return found
