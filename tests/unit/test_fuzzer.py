"""The fuzzer goes through all its targets, whose examples are valid; `make fuzz` does the rest."""

from __future__ import annotations

import sys

from tests.forked import Forked
from tests.fuzz.__main__ import main


def test_the_fuzzer_finds_nothing_in_a_few_inputs_of_each_target() -> None:
    process = Forked(fuzz)
    out, err = process.communicate()
    assert process.returncode == 0, out + err
    assert "nothing found in about 21 inputs" in out


def fuzz() -> None:
    sys.argv[1:] = ["--seed", "1", "--count", "3"]
    sys.exit(main())
