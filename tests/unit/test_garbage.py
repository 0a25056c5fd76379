"""How often processes of ours look for garbage in cycles."""

from __future__ import annotations

import subprocess
import sys

PROGRAM = """
import atexit, sys
from colddiff.machine.garbage import collect_seldom

class Cycle:
    def __init__(self):
        self.itself = self

    def __del__(self):
        print("found")

atexit.register(print, "ended")
if len(sys.argv) > 1:
    collect_seldom()
Cycle()
"""


def test_a_process_that_ends_does_not_look_for_garbage_a_last_time() -> None:
    def printed(*words: str) -> list[str]:
        command = [sys.executable, "-c", PROGRAM, *words]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()

    assert printed() == ["ended", "found"]
    assert printed("seldom") == ["ended"]
