"""The copy of a process's output: what ends with it, and what is not waited for."""

from __future__ import annotations

import logging
import subprocess
import sys
from pathlib import Path

import pytest

from colddiff.jobs.logs import logged
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


def test_a_log_holds_what_the_process_and_its_children_print(tmp_path: Path) -> None:
    script = (
        "import subprocess, sys\n"
        "from pathlib import Path\n"
        "from colddiff.jobs.logs import printed\n"
        "log = Path(sys.argv[1])\n"
        "with printed(log.write_bytes, lambda text: None) as flush:\n"
        "    print('from python', flush=True)\n"
        "    subprocess.run(['echo', 'from a child'], check=True)\n"
        "    print('still in a buffer')\n"
        "    flush()\n"
        "    kept = log.read_text()\n"
        "    print('an error', file=sys.stderr)\n"
        "assert log.read_text().startswith(kept)\n"
        "print(kept, end='')\n"
    )
    log = tmp_path / "log.txt"
    done = subprocess.run(
        [sys.executable, "-c", script, str(log)], capture_output=True, text=True, check=True
    )
    lines = log.read_text().splitlines()
    words = ["from python", "from a child", "still in a buffer", "an error"]
    assert [unstamped(line) for line in lines] == words
    # After them what was in the log once it was flushed.
    assert done.stdout.splitlines() == [*lines, *lines[:3]]


def test_what_is_logged_in_this_process_is_kept_without_touching_its_streams(
    capfd: pytest.CaptureFixture[str],
) -> None:
    kept: list[bytes] = []
    with logged(kept.append):
        logging.getLogger("colddiff.anywhere").info("step %d", 3)
        print("a debugger's line")
    logging.getLogger("colddiff.anywhere").info("afterwards")
    assert unstamped(kept[-1].decode()) == "step 3\n"
    assert capfd.readouterr().out == "a debugger's line\n"
