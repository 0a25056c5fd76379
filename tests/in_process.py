"""`colddiff` run in this process, as its entry point would."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass

import pytest

from colddiff.cli.main import main
from tests.meanwhile import meanwhile


@dataclass(frozen=True)
class Done:
    """What came of a command."""

    returncode: int
    stdout: str
    stderr: str


def colddiff_here(
    patch: pytest.MonkeyPatch, captured: pytest.CaptureFixture[str], *words: object, **env: str
) -> Done:
    """Runs ``colddiff words`` with ``env`` set; it always ends with an exit code."""
    captured.readouterr()
    with patch.context() as meanwhile:
        meanwhile.setattr(sys, "argv", ["colddiff", *map(str, words)])
        for name, value in env.items():
            meanwhile.setenv(name, value)
        with pytest.raises(SystemExit) as ended:
            main()
    return Done(int(ended.value.code or 0), *captured.readouterr())


def terminated_once(look: Callable[[], object]) -> AbstractContextManager[None]:
    """Within ``with``, this process gets a SIGTERM once ``look()`` is true: a job in it stops."""

    def watch() -> bool:
        # Where nobody handles it, it would end the tests.
        if not (look() and callable(signal.getsignal(signal.SIGTERM))):
            return False
        os.kill(os.getpid(), signal.SIGTERM)
        return True

    return meanwhile(watch, every_s=0.01)
