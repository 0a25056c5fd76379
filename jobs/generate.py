"""`python -m jobs.generate job.json --attempt N`: one attempt at a generation job, under Ray."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import ray

from colddiff import connect
from colddiff.engine.folder import JobFolder
from colddiff.engine.log import LogTee
from colddiff.resolve import ResolvedJob
from colddiff.run.generation import run_attempt
from colddiff.run.log import say
from jobs.ray_crew import RayCrew


def main(arguments: list[str] | None = None) -> int:
    """Exit code of the attempt: 0 done, 1 failed, 4 stopped."""
    parser = argparse.ArgumentParser(prog="jobs.generate")
    parser.add_argument("job", type=Path)
    parser.add_argument("--attempt", type=int, required=True)
    options = parser.parse_args(arguments)
    resolved = ResolvedJob.from_dict(json.loads(options.job.read_text()))
    folder = JobFolder(connect.open_store(resolved.storage), resolved.id)
    job = resolved.generate
    workers = job.workers if isinstance(job.workers, int) else 1
    with LogTee(lambda text: folder.write_log(options.attempt, text)):
        ray.init(log_to_driver=True, ignore_reinit_error=True)
        return run_attempt(
            resolved,
            options.attempt,
            lambda resolved, plan: RayCrew(resolved, plan, say),
            {"job": resolved.to_dict()},
            gpus=job.resources.gpus * workers,
        )


if __name__ == "__main__":
    sys.exit(main())
