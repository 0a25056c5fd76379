"""A verb of a few lines as one folder, in a copy of the package that is otherwise untouched."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import colddiff
from tests.kills import PATIENCE_S

FILES = {
    "__init__.py": '"""`submit count`: counts, to show what a verb is."""\n',
    "job.py": '''\
"""The job of counting."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field

from colddiff.jobs.job import OPERATION, Job, LimitsSpec, ResourcesSpec, Workers


class CountJob(Job):
    """Count to ``goal`` in steps of ``by``."""

    verb: ClassVar[str] = "count"

    by: Annotated[int, Field(ge=1)] = 1
    goal: Annotated[int, Field(ge=0), OPERATION] = 3
    fail: Annotated[bool, OPERATION] = False
    workers: Annotated[Workers, OPERATION] = 1
    resources: Annotated[ResourcesSpec, OPERATION] = ResourcesSpec()
    limits: Annotated[LimitsSpec, OPERATION] = LimitsSpec()
''',
    "verb.py": '''\
"""What `submit count` is."""

from __future__ import annotations

from typing import Any

from colddiff.jobs.verb import DryRun, Verb


class Count(Verb):
    """Counting."""

    name = "count"
    help = "Count sheep."
    extent = "goal"
    unit = "sheep"

    def spec(self) -> Any:
        from colddiff.verbs.count.job import CountJob

        return CountJob

    def resolve(self, job: Any, storage: str, *, pack: bool) -> Any:
        return job, {}

    def prepare(self, attempt: Any) -> int:
        return attempt.folder.status().step

    def run(self, attempt: Any, prepared: int, *, on_ray: bool) -> dict[str, Any]:
        from colddiff.verbs.count.work import count

        return count(attempt, prepared, on_ray)

    def next_steps(self, job_id: str, result: Any) -> list[str]:
        return ["sleep"]

    def dry_run(self, job: Any, rate: str | None) -> DryRun:
        return DryRun([f"counts {job.goal} sheep"])


VERB = Count()
''',
    "work.py": '''\
"""Counting itself."""

from __future__ import annotations

import os
from typing import Any

from colddiff.errors import ColddiffError, Stopped


def count(attempt: Any, start: int, on_ray: bool) -> dict[str, Any]:
    job = attempt.job
    if job.fail:
        raise ColddiffError("a sheep refused to jump; send another sheep")
    for n in range(start, job.goal, job.by):
        if attempt.stop_requested():
            raise Stopped("the shepherd was called away")
        attempt.progress(step=n + job.by, num_steps=job.goal, phase="counting")
    attempt.report(f"{job.goal} sheep have jumped")
    attempt.reached(job.goal)
    attempt.tracker.log_metrics({"count/sheep": float(job.goal)}, job.goal)
    attempt.keep_picture("sheep.txt", b"baa")
    where = _counted_by_ray() if on_ray else "here"
    return {"started_at": start, "counted": job.goal, "where": where, "driver": os.getpid()}


def _counted_by_ray() -> str:
    from colddiff.verbs.count.on_ray import ask

    return ask()
''',
    "on_ray.py": '''\
"""Counting on the cluster."""

from __future__ import annotations

import gc

import ray


def ask() -> str:
    """Says where a Ray task runs, and after how many new objects its process looks for garbage."""
    where, new = ray.get(ray.remote(num_cpus=0)(lambda: ("on ray", gc.get_threshold()[0])).remote())
    return f"{where}, {new} after {gc.get_threshold()[0]} of the driver"
''',
}


SERVER = """
import contextlib, io, json, sys, traceback

for line in sys.stdin:
    sys.argv, code = ["colddiff", *json.loads(line)], 0
    with contextlib.redirect_stdout(io.StringIO()) as out:
        with contextlib.redirect_stderr(io.StringIO()) as err:
            try:
                from colddiff.cli.main import main

                main()
            except SystemExit as ended:
                code = ended.code or 0
            except BaseException:
                traceback.print_exc()
                code = 1
    print(json.dumps([code, out.getvalue(), err.getvalue()]), flush=True)
"""


class CopiedPackage:
    """The package with ``verbs/count/`` added, and its command line."""

    def __init__(self, root: Path, env: dict[str, str]) -> None:
        self.root = root
        source = Path(colddiff.__file__).parent
        ignore = shutil.ignore_patterns("__pycache__")
        shutil.copytree(source, root / "colddiff", ignore=ignore)
        shutil.copytree(source.parent / "jobs", root / "jobs", ignore=ignore)
        folder = root / "colddiff" / "verbs" / "count"
        folder.mkdir()
        for name, text in FILES.items():
            (folder / name).write_text(text)
        self.env = {**os.environ, **env, "PYTHONPATH": str(root)}
        self._server: subprocess.Popen[str] | None = None

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        """`colddiff WORDS` from a folder of its own, one after the other in one process."""
        if self._server is None:
            self._server = subprocess.Popen(
                [sys.executable, "-c", SERVER],
                cwd=self.root,
                env=self.env,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
        assert self._server.stdin
        assert self._server.stdout
        self._server.stdin.write(f"{json.dumps(words)}\n")
        self._server.stdin.flush()
        return subprocess.CompletedProcess(words, *json.loads(self._server.stdout.readline()))

    def close(self) -> None:
        """Ends the process of ``run``; the next command has a new one."""
        if self._server is not None:
            self._server.communicate(timeout=PATIENCE_S)
            self._server = None

    def python(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Python with the copied package in front."""
        return subprocess.run(
            [sys.executable, *words],
            cwd=self.root,
            env=self.env,
            capture_output=True,
            text=True,
            check=False,
        )
