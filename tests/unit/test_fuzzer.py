"""The fuzzer goes through all its targets, whose examples are valid; `make fuzz` does the rest."""

from __future__ import annotations

import subprocess
import sys


def test_the_fuzzer_finds_nothing_in_a_few_inputs_of_each_target() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.fuzz", "--seed", "1", "--count", "3"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "nothing found in about 21 inputs" in done.stdout
