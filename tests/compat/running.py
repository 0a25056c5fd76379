"""Jobs run by the present code through names that do not move, in a storage of their own."""

from __future__ import annotations

import contextlib
import io
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import colddiff
from colddiff.cli.main import main
from tests.forked import forked_command

RECORDED = Path(__file__).parent / "recorded"
TINY = RECORDED / "tiny.yaml"
OTHER_PLACES = ("MLFLOW_TRACKING_URI", "COLDDIFF_ADDRESS", "RAY_ADDRESS", "AWS_ENDPOINT_URL")


@dataclass(frozen=True)
class Done:
    """What came of a command."""

    code: int
    stdout: str
    stderr: str

    @property
    def json(self) -> Any:
        """The one line of ``--json``; fails where the command did."""
        assert self.code == 0, self.stderr
        return json.loads(self.stdout)


@contextlib.contextmanager
def storage_in(root: Path) -> Iterator[Path]:
    """The storage ``root/runs``, named by the environment meanwhile as a user would name it."""
    with pytest.MonkeyPatch.context() as patch:
        for name in OTHER_PLACES:
            patch.delenv(name, raising=False)
        patch.setenv("COLDDIFF_STORAGE", str(root / "runs"))
        patch.setenv("COLDDIFF_CACHE", str(root / "cache"))
        patch.setenv("COLDDIFF_HOME", str(root / "home"))
        # The driver of an old run that was killed is not watched for as long as a user's would be.
        patch.setattr("colddiff.jobs.follow.LOST_AFTER_S", 3.0)
        (root / "runs").mkdir(exist_ok=True)
        yield root / "runs"


def command(*words: object) -> Done:
    """``colddiff words`` in this process, as its entry point runs it."""
    out, err = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["colddiff", *map(str, words)])
        with (
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(err),
            pytest.raises(SystemExit) as ended,
        ):
            main()
    return Done(int(ended.value.code or 0), out.getvalue(), err.getvalue())


def process(*words: object) -> Done:
    """``colddiff words`` in a process of its own."""
    ended = forked_command(words)
    return Done(ended.returncode, ended.stdout, ended.stderr)


def tiny(verb: str, *overrides: str) -> Any:
    """The job of a section of ``tiny.yaml``."""
    return colddiff.load_recipe(TINY).job(verb, overrides)


def train_tiny(*overrides: str) -> dict[str, Any]:
    """Result of the training of ``tiny.yaml``, with fields changed."""
    return colddiff.train(tiny("train", *overrides), "tiny")


def submit(verb: str, *words: object) -> dict[str, Any]:
    """Outcome of ``submit VERB tiny.yaml --local``, which has to be done."""
    outcome: dict[str, Any] = command("submit", verb, TINY, "--local", "--json", *words).json
    assert outcome["state"] == "done"
    return outcome
