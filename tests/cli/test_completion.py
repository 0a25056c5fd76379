"""Shell completion: what Tab offers, and that nothing heavy is imported for it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from colddiff.jobs.verb import VERBS

ROOT = Path(__file__).resolve().parents[2]
HEAVY = ("torch", "ray", "mlflow", "boto3", "numpy", "yaml")
REPORT = f"""
import atexit, sys
from colddiff.machine.deferred_import import is_imported
atexit.register(lambda: sys.stderr.write(str([n for n in {HEAVY!r} if is_imported(n)])))
from colddiff.cli.main import main
main()
"""


def run(*arguments: str, **env: str) -> str:
    """What a process of `colddiff` prints, none of the heavy modules being imported by it."""
    done = subprocess.run(
        [sys.executable, "-c", REPORT, *arguments],
        env={**os.environ, "PYTHONPATH": str(ROOT), **env},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "[]")
    return done.stdout


def offered(line: str) -> set[str]:
    """What bash is offered at the end of the line."""
    number = len(line.split()) - (not line.endswith(" "))
    env = {"_COLDDIFF_COMPLETE": "complete_bash", "COMP_WORDS": line, "COMP_CWORD": str(number)}
    return set(run(**env).split())


def test_commands_and_verbs_are_completed() -> None:
    assert {"submit", "recipes", "data", "demo"} <= offered("colddiff ")
    assert offered("colddiff re") == {"recipes", "report", "restore", "restorers"}
    assert offered("colddiff submit ") == set(VERBS)
    assert offered("colddiff submit tr") == {"train"}


def test_options_are_completed() -> None:
    assert offered("colddiff submit train --de") == {"--detach"}
    assert offered("colddiff recipes --sc") == {"--schema"}


def test_other_shells_are_told_what_each_verb_does() -> None:
    fish = {"_TYPER_COMPLETE_FISH_ACTION": "get-args", "_TYPER_COMPLETE_ARGS": "colddiff submit t"}
    assert run(_COLDDIFF_COMPLETE="complete_fish", **fish) == "train\tTrain a restorer.\n"
    zsh = run(_COLDDIFF_COMPLETE="complete_zsh", _TYPER_COMPLETE_ARGS="colddiff submit t")
    assert '"train":"Train a restorer."' in zsh


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_for_a_shell_asks_colddiff(shell: str) -> None:
    script = run(_COLDDIFF_COMPLETE=f"source_{shell}")
    assert f"_COLDDIFF_COMPLETE=complete_{shell}" in script
