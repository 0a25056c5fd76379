"""Examples in docstrings: the names people use first have one, and all of them run as printed."""

from __future__ import annotations

import doctest
import importlib
from pathlib import Path

import pytest
import torch

from tests.tiny_checkpoint import tiny_checkpoint

FIRST_USED = {
    "colddiff.types": ["ImageShape"],
    "colddiff.degradations.base": ["Degradation"],
    "colddiff.degradations.spec": ["build_degradation"],
    "colddiff.schedules": ["Constant", "Exponential", "Linear", "Table"],
    "colddiff.restorers.base": ["build_restorer"],
    "colddiff.sampling": ["sample"],
    "colddiff.laws": ["check_laws"],
    "colddiff.jobs.recipes": ["load_recipe"],
    "colddiff.jobs.in_process": ["run"],
    "colddiff.checkpoints.references": ["load_checkpoint"],
    "colddiff.report.plots": ["plot_grid", "plot_strip"],
    "colddiff.spec.overrides": ["apply_overrides", "changed"],
}


@pytest.mark.parametrize("module", FIRST_USED)
def test_examples_run_and_print_what_they_say(module: str, tmp_path: Path) -> None:
    given = {"folder": tiny_checkpoint(tmp_path), "torch": torch}
    finder, runner = doctest.DocTestFinder(exclude_empty=True), doctest.DocTestRunner()
    found = finder.find(importlib.import_module(module), extraglobs=given)
    for test in found:
        runner.run(test)
    assert runner.failures == 0, "see the output above"
    with_examples = {test.name.removeprefix(f"{module}.") for test in found if test.examples}
    assert set(FIRST_USED[module]) <= with_examples
