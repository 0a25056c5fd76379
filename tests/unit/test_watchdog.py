"""A process that makes no step tells its stacks and ends; one that does is left alone."""

from __future__ import annotations

import subprocess
import sys
import threading
import time

from colddiff.verbs.train.watchdog import EXIT_CODE, FIRST_STEP, Watchdog


def hung_in(code: str, *, timeout_s: float) -> subprocess.CompletedProcess[str]:
    script = (
        "import sys, time\n"
        "from colddiff.verbs.train.watchdog import Watchdog\n"
        f"dog = Watchdog({timeout_s}, lambda text: print(text, flush=True), grace_s=0.1)\n"
        f"{code}"
    )
    return subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=120
    )


def test_a_hang_is_told_with_all_stacks_and_ends_the_process() -> None:
    code = "def stuck_here():\n    time.sleep(100)\nwith dog:\n    dog.beat()\n    stuck_here()\n"
    ended = hung_in(code, timeout_s=0.5)
    assert ended.returncode == EXIT_CODE
    assert "all threads" in ended.stdout
    assert "in stuck_here" in ended.stdout


def test_an_interpreter_that_hangs_is_ended_too() -> None:
    # libc's sleep, called with the interpreter's lock held: no other Python thread runs.
    code = (
        "import ctypes\n"
        "with dog:\n"
        "    dog.beat()\n"
        "    time.sleep(0.4)\n"
        "    ctypes.PyDLL(None).sleep(100)\n"
    )
    ended = hung_in(code, timeout_s=0.5)
    assert ended.returncode == 1
    assert "Timeout" in ended.stderr
    assert "File" in ended.stderr


def test_steps_keep_it_quiet_and_the_first_may_take_longer() -> None:
    told: list[str] = []
    ends: list[int] = []
    with Watchdog(0.4, told.append, grace_s=0.1, end=ends.append) as dog:
        time.sleep(0.8)  # compiling
        assert FIRST_STEP * 0.4 > 0.8
        for _ in range(5):
            dog.beat()
            time.sleep(0.1)
    assert (told, ends) == ([], [])
    assert "watchdog" not in [thread.name for thread in threading.enumerate()]


def test_what_is_told_cannot_be_written_and_the_process_still_ends() -> None:
    ended = hung_in(
        "dog._report = lambda text: 1 / 0\nwith dog:\n    dog.beat()\n    time.sleep(100)\n",
        timeout_s=0.3,
    )
    assert ended.returncode == EXIT_CODE
