"""The processes of a cluster: which are found, what counts as alive, and how they are ended."""

from __future__ import annotations

import os
import subprocess
import sys

import psutil
import pytest

from colddiff.machine import processes as processes_module
from colddiff.machine.processes import alive, marked_processes, process, processes, terminate_all

FAMILY = """
import subprocess, sys, time
subprocess.Popen(["sleep", "600"], start_new_session=True)
subprocess.Popen([sys.executable, "-c", "import signal, time\\n"
    "signal.signal(signal.SIGTERM, signal.SIG_IGN)\\nprint('ready', flush=True)\\ntime.sleep(600)"])
time.sleep(600)
"""


def test_a_family_is_ended_with_orphans_and_those_that_will_not_listen() -> None:
    marker = f"COLDDIFF_TEST_FAMILY={os.getpid()}"
    name, _, value = marker.partition("=")
    head = subprocess.Popen(
        [sys.executable, "-c", FAMILY], env={**os.environ, name: value}, stdout=subprocess.PIPE
    )
    assert head.stdout is not None
    with head.stdout:
        head.stdout.readline()
    family = marked_processes(marker, None)
    assert len(family) == 3
    head.kill()
    head.wait()
    assert len(marked_processes(marker, None)) == 2
    assert terminate_all(lambda: marked_processes(marker, None), grace_s=0.5) == set()
    assert not [item for item in family if alive(item)]


def test_what_hides_its_environment_is_found_by_its_session() -> None:
    # As Ray's workers look: a title instead of a command, and nothing left of the environment.
    actor = subprocess.Popen(
        ["ray::Actor.work", "600"], executable="sleep", env={}, start_new_session=True
    )
    other = subprocess.Popen(["sleep", "600"], env={"A": "1"}, start_new_session=True)
    try:
        assert marked_processes("COLDDIFF_TEST_NOBODY=1", None) == set()
        found = marked_processes("COLDDIFF_TEST_NOBODY=1", actor.pid)
        assert {item.pid for item in found} == {actor.pid}
        assert [item.command for item in found] == ["ray::Actor.work 600"]
        assert marked_processes("COLDDIFF_TEST_NOBODY=1", other.pid) == set()
    finally:
        for item in (actor, other):
            item.kill()
            item.wait()


def test_who_looks_for_marked_processes_is_never_among_them() -> None:
    code = (
        "from colddiff.machine.processes import marked_processes\n"
        "print(marked_processes('COLDDIFF_TEST_SELF=1', None))"
    )
    env = {**os.environ, "COLDDIFF_TEST_SELF": "1"}
    found = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, check=True)
    assert found.stdout == b"set()\n"


def test_a_zombie_does_not_run() -> None:
    ended = subprocess.Popen(["sleep", "600"])
    item = process(ended.pid)
    assert item is not None
    assert alive(item)
    ended.kill()
    os.waitid(os.P_PID, ended.pid, os.WEXITED | os.WNOWAIT)
    assert psutil.Process(ended.pid).status() == psutil.STATUS_ZOMBIE
    assert not alive(item)
    assert process(ended.pid) is None
    assert ended.pid not in processes()
    ended.wait()


def test_another_process_with_the_same_pid_is_neither_alive_nor_ended(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bystander = subprocess.Popen(["sleep", "600"])
    try:
        earlier = process(bystander.pid)
        assert earlier is not None
        # The identity that a process which ended an hour ago would have left behind.
        pid, created = earlier.handle._ident
        earlier.handle._ident = (pid, created - 3600)
        assert not alive(earlier)
        assert earlier != process(bystander.pid)
        assert terminate_all(lambda: {earlier}, grace_s=0.1) == set()
        # Also where it took the pid over between a look and the signal.
        monkeypatch.setattr(processes_module, "alive", lambda item: True)
        monkeypatch.setattr(processes_module, "KILL_S", 0.1)
        assert terminate_all(lambda: {earlier}, grace_s=0.1) == {earlier}
        assert bystander.poll() is None
    finally:
        bystander.kill()
        bystander.wait()


def test_what_cannot_be_ended_is_returned(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes_module, "KILL_S", 0.1)
    bystander = subprocess.Popen(["sleep", "600"])
    try:
        item = process(bystander.pid)
        assert item is not None
        sent = []
        monkeypatch.setattr(psutil.Process, "terminate", lambda self: sent.append("terminate"))
        monkeypatch.setattr(psutil.Process, "kill", lambda self: sent.append("kill"))
        assert terminate_all(lambda: {item}, grace_s=0.1) == {item}
        assert sent == ["terminate", "kill"]
    finally:
        bystander.send_signal(9)
        bystander.wait()


@pytest.mark.parametrize("pid", [0, -1, 2**40])
def test_a_number_that_is_no_pid_is_no_process(pid: int) -> None:
    assert process(pid) is None
