"""How long commands on submitted jobs take: in a STORAGE on a disk, and with many jobs in S3."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from colddiff.jobs.folder import JobFolder
from colddiff.jobs.status import Status
from colddiff.stores.open import open_store
from colddiff.verbs.train.job import TrainJob
from tests.system import running_s3

FINISHED = ("quickstart", "num_steps=2", "restorer.dim=8", "evaluation.num_images=64")


def measure(num_jobs: int, repeats: int) -> list[dict[str, Any]]:
    """Median seconds of whole commands, the start of Python included, and those of their CPU."""
    with tempfile.TemporaryDirectory() as name, pytest.MonkeyPatch.context() as patch:
        root = Path(name)
        with running_s3(root / "s3") as server:
            server.set(patch)
            bucket = f"s3://{server.bucket()}/runs"
            return [_few(root, repeats), _many(bucket, root, num_jobs, repeats)]


def _few(root: Path, repeats: int) -> dict[str, Any]:
    storage = str(root / "runs")
    ids = make_jobs(storage, 3)
    env = {"COLDDIFF_STORAGE": storage, "COLDDIFF_HOME": str(root / "home")}
    row: dict[str, Any] = {"storage": "a disk, 3 jobs"}
    row |= _shown("python", [_spent(["-c", "pass"], {}) for _ in range(repeats)])
    row |= _shown("list", [_spent(_command("list"), env) for _ in range(repeats)])
    for verb in ("status", "logs", "stop", "wait"):
        row |= _shown(verb, [_spent(_command(verb, ids[0]), env) for _ in range(repeats)])
    again = _command("submit", "train", *FINISHED)
    _spent([*again, "--local"], env)  # packs the digits and trains
    # Not --local: it is reported before a cluster would be started.
    row |= _shown("submit, finished", [_spent(again, env) for _ in range(repeats)])
    row["submit of a finished job, goal s"] = 1.5
    return row


def _many(storage: str, root: Path, num_jobs: int, repeats: int) -> dict[str, Any]:
    make_jobs(storage, num_jobs)
    envs = [
        {"COLDDIFF_STORAGE": storage, "COLDDIFF_HOME": str(root / f"home-{n}")}
        for n in range(repeats + 1)
    ]
    row: dict[str, Any] = {"storage": f"S3 on loopback, {num_jobs} jobs"}
    row |= list_times("very first list", envs[:1])
    row |= list_times("first list elsewhere", envs[1:])
    row |= list_times("list again", envs[1:])
    row["a list, goal s"] = 2.0
    row |= _shown("python", [_spent(["-c", "pass"], {}) for _ in range(repeats)])
    for name, code in (
        ("import of the command", "import colddiff.cli.main"),
        ("import of boto3, a client", "import boto3; boto3.client('s3')"),
    ):
        row |= _shown(name, [_spent(["-c", code], {}) for _ in range(repeats)])
    return row


def list_times(name: str, envs: Sequence[Mapping[str, str]], *words: str) -> dict[str, float]:
    """Median seconds of `colddiff list`, once in each of these environments."""
    return _shown(name, [_spent(_command("list", *words), env) for env in envs])


def make_jobs(storage: str, count: int) -> list[str]:
    """``count`` jobs that are done, with the files that such jobs have."""
    store, spec = open_store(storage), TrainJob(data="/data").to_dict()

    def make(number: int) -> str:
        folder = JobFolder(store, f"train-{'ab'[number % 2]}-{number:08x}")
        folder.claim(1, {"host": "elsewhere", "pid": 1})
        job = {"id": folder.job_id, "verb": "train", "slug": "ab"[number % 2], "created": 1.0}
        folder.write_job({**job, "storage": storage, "spec": {**spec, "seed": number}})
        folder.write_log(1, b"a line\n" * 100)
        folder.write_result({"id": folder.job_id, "metrics": {}, "summary": [], "pictures": []})
        folder.write_status(
            Status(
                "done",
                1,
                700,
                700,
                heartbeat=1e9 + number,
                score=12.5,
                score_metric="eval/sampled/fd_lenet",
            )
        )
        return folder.job_id

    with ThreadPoolExecutor(16) as pool:
        return list(pool.map(make, range(count)))


def _command(*words: str) -> list[str]:
    return ["-m", "colddiff.cli.main", *words]


def _spent(arguments: Sequence[str], env: Mapping[str, str]) -> tuple[float, float]:
    """Wall and CPU seconds of a process of its own."""
    before, began = os.times(), time.perf_counter()
    subprocess.run(
        [sys.executable, *arguments],
        env={**os.environ, **env},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        check=True,
    )
    wall, after = time.perf_counter() - began, os.times()
    cpu = after.children_user + after.children_system
    return wall, cpu - before.children_user - before.children_system


def _shown(name: str, times: Sequence[tuple[float, float]]) -> dict[str, float]:
    walls, cpus = zip(*times, strict=True)
    return {f"{name}, s": statistics.median(walls), f"{name}, CPU s": statistics.median(cpus)}
