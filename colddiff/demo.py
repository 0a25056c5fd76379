"""`colddiff demo`: trains and evaluates on real digits with a private cluster, in minutes."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from colddiff.errors import ColddiffError

ELSEWHERE = ("COLDDIFF_ADDRESS", "RAY_ADDRESS", "MLFLOW_TRACKING_URI", "COLDDIFF_STORAGE")


def run_demo(folder: Path, overrides: tuple[str, ...] = ()) -> int:
    """Packs digits, starts a private cluster, trains, evaluates and draws; ends the cluster.

    Everything it creates is in ``folder`` (plus a temporary private COLDDIFF_HOME). Returns the
    exit code of the training job; raises ColddiffError if its result has no pictures.
    """
    began = time.monotonic()
    storage = folder.absolute() / "runs"
    with _private_home() as home:
        env = {name: value for name, value in os.environ.items() if name not in ELSEWHERE}
        env |= {"COLDDIFF_HOME": str(home), "COLDDIFF_STORAGE": str(storage)}
        _note(f"colddiff demo: all files are written to {folder}; Ctrl-C stops everything\n")
        try:
            submitted = _colddiff(["submit", "train", "quickstart", "--json", *overrides], env)
        finally:
            _colddiff(["cluster", "stop"], env)
    if submitted.returncode != 0:
        return submitted.returncode
    job = json.loads(submitted.stdout)
    job_folder = storage / "jobs" / job["id"]
    result = json.loads((job_folder / "result.json").read_text())
    _show(result, job["id"], storage, time.monotonic() - began)
    return 0


@contextmanager
def _private_home() -> Iterator[Path]:
    # Short: Ray's sockets are below it, and a socket's path has at most 107 characters.
    home = Path(tempfile.mkdtemp(prefix="colddiff-demo-"))
    try:
        yield home
    finally:
        shutil.rmtree(home, ignore_errors=True)


def _colddiff(arguments: list[str], env: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    """Runs a colddiff command as a user would type it; its messages go to stderr."""
    _note(f"$ colddiff {' '.join(arguments)}")
    command = [sys.executable, "-m", "colddiff.cli.main", *arguments]
    process = subprocess.Popen(command, env=dict(env), stdout=subprocess.PIPE, text=True)  # noqa: S603
    try:
        stdout, _ = process.communicate()
    except KeyboardInterrupt:
        # The terminal sent the same signal to the command, which reports it and exits by itself.
        process.communicate(timeout=60)
        raise
    return subprocess.CompletedProcess(command, process.returncode, stdout)


def _show(result: Mapping[str, Any], job_id: str, storage: Path, seconds: float) -> None:
    from colddiff.jobs.results import result_lines

    if not result.get("pictures"):
        raise ColddiffError(f"the demo's job {job_id} has no pictures; see `colddiff logs`")
    training_s = result["time"]["training_s"]
    severity = result["provenance"]["severities"][0]
    _print(f"\nDigits blurred {severity} times, restored, on held-out digits:\n")
    for line in result_lines(job_id, result):
        _print(line)
    distance = {
        name: result["metrics"][f"eval/{name}/fd_lenet"] for name in ("sampled", "direct", "naive")
    }
    _print("\nfd_lenet is a Frechet distance between features of digits: lower is better.")
    if min(distance, key=lambda name: float(distance[name])) == "sampled":
        direct, naive = (distance[name] / distance["sampled"] for name in ("direct", "naive"))
        _print(
            f"Algorithm 2 (improved) is {direct:.1f} times closer to real digits than the direct "
            f"restoration R(x_T, T),\nand {naive:.1f} times closer than Algorithm 1 (naive), as in "
            "the paper. Direct has the smaller error per\npixel (rmse), because it is an average "
            "over the images that x_T may come from."
        )
    _print(
        f"\nTook {seconds:.0f} s, {training_s:.0f} s of it training.\n\nView the runs:\n"
        f"  {Path(sys.executable).parent}/mlflow ui --backend-store-uri {result['tracking']['uri']}"
        f"\n\nCommands find the job after\n  export COLDDIFF_STORAGE={storage}\n"
        f"  colddiff status {job_id}\n"
        "  colddiff submit train quickstart num_steps=2000      # resumes from the last step\n"
        "  colddiff submit train quickstart degradation.num_timesteps=10   # another job\n"
        "  colddiff recipes"
    )


def _note(line: str) -> None:
    print(line, file=sys.stderr, flush=True)  # noqa: T201


def _print(line: str) -> None:
    print(line, flush=True)  # noqa: T201
