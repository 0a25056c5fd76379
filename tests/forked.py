"""Commands in processes of their own that have imported already what they use.

A process that Python starts anew imports torch and MLflow for four seconds before it does anything;
one that is forked from a server which has done so, and nothing else, for none.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

from colddiff.machine.garbage import collect_seldom

IMPORTED = [
    *("torch._dynamo", "mlflow", "sqlalchemy", "matplotlib.figure", "webdataset"),
    *("colddiff.cli.main", "colddiff.verbs.train.work", "colddiff.verbs.generate.work"),
    *("colddiff.report.page.page", "colddiff.tracking.mlflow_run"),
    *("tests.forked", "tests.unit.test_train", "tests.unit.test_resume"),
]
"""What the server imports: also for ranks (`tests/ranks.py`), whose functions tests hold."""


class Forked:
    """A function in such a process; its output is that of a `subprocess.Popen` with pipes."""

    def __init__(
        self, function: Callable[..., None], *arguments: Any, env: Mapping[str, str] | None = None
    ) -> None:
        multiprocessing.set_forkserver_preload(IMPORTED)
        self._folder = tempfile.TemporaryDirectory(prefix="forked-")
        self._out, self._err = (Path(self._folder.name, name) for name in ("out", "err"))
        context = multiprocessing.get_context("forkserver")
        given = (dict(os.environ if env is None else env), str(Path.cwd()), self._out, self._err)
        self._process: ForkServerProcess = context.Process(
            target=_begun, args=(*given, function, arguments), daemon=True
        )
        self._process.start()

    @property
    def pid(self) -> int:
        assert self._process.pid is not None
        return self._process.pid

    @property
    def returncode(self) -> int | None:
        return self._process.exitcode

    def poll(self) -> int | None:
        """The exit code, once it has ended."""
        return self._process.exitcode

    def printed(self) -> str:
        """What it has written to stdout so far."""
        return self._out.read_text() if self._out.exists() else ""

    def send_signal(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """Its stdout and stderr, when it has ended; TimeoutExpired if that takes longer."""
        self._process.join(timeout)
        if self._process.exitcode is None:
            raise subprocess.TimeoutExpired(str(self._process), timeout or 0.0)
        found = self.printed(), self._err.read_text()
        self._folder.cleanup()
        return found


def forked_command(
    words: Sequence[object], env: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """``colddiff words`` in a process of its own, to its end."""
    typed = [str(word) for word in words]
    process = Forked(colddiff_main, *typed, env=env)
    out, err = process.communicate()
    assert process.returncode is not None
    return subprocess.CompletedProcess(typed, process.returncode, out, err)


def colddiff_main(*words: str) -> None:
    """The command line, as its entry point runs it."""
    from colddiff.cli.main import main

    sys.argv = ["colddiff", *words]
    main()


def _begun(
    env: dict[str, str],
    folder: str,
    out: Path,
    err: Path,
    function: Callable[..., None],
    arguments: tuple[Any, ...],
) -> None:
    os.environ.clear()
    os.environ.update(env)
    os.chdir(folder)
    for number, path in ((1, out), (2, err)):
        with path.open("wb") as file:
            os.dup2(file.fileno(), number)
    collect_seldom()
    function(*arguments)
