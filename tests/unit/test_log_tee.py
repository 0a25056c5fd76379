"""The copy of a process's output: what ends with it, and what is not waited for."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from colddiff.machine.printed_lines import unstamped

LEAVING = """
import subprocess, sys, time
from pathlib import Path
from colddiff.jobs import logs
logs.UPLOAD_S = 0.2
with logs.printed(Path(sys.argv[1]).write_bytes, lambda text: None):
    print('ours', flush=True)
    child = subprocess.Popen(['sleep', '60'])
    began = time.monotonic()
waited = time.monotonic() - began
child.kill()
print(waited)
"""


def test_a_child_that_still_holds_the_pipe_is_not_waited_for(tmp_path: Path) -> None:
    log = tmp_path / "log.txt"
    done = subprocess.run(
        [sys.executable, "-c", LEAVING, str(log)], capture_output=True, text=True, check=True
    )
    assert unstamped(log.read_text()) == "ours\n"
    assert float(done.stdout.split()[-1]) < 20
