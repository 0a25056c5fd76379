"""`python -m jobs.generate job.json --attempt N`: one attempt at a generation job, under Ray."""

from __future__ import annotations

import sys

import ray

from colddiff.engine.log import LogTee
from colddiff.run.generation import run_attempt
from colddiff.run.log import say
from jobs.handed_in import handed_in
from jobs.ray_crew import RayCrew
from jobs.worker_count import most_workers


def main(arguments: list[str] | None = None) -> int:
    """Exit code of the attempt: 0 done, 1 failed, 4 stopped."""
    resolved, folder, number = handed_in("generate", arguments)
    with LogTee(lambda text: folder.write_log(number, text)):
        ray.init(log_to_driver=True, ignore_reinit_error=True)
        job = resolved.generate
        return run_attempt(
            resolved,
            number,
            lambda resolved, plan: RayCrew(resolved, plan, say),
            {"job": resolved.to_dict()},
            gpus=job.resources.gpus * most_workers(job),
        )


if __name__ == "__main__":
    sys.exit(main())
