"""`python -m colddiff.verbs.generate.on_ray job.json --attempt N`: one attempt under Ray."""

from __future__ import annotations

import sys

import ray

from colddiff.cluster.driver import handed_in
from colddiff.cluster.worker_count import most_workers
from colddiff.jobs.log import say
from colddiff.jobs.log_tee import LogTee
from colddiff.verbs.generate.job import GenerateJob
from colddiff.verbs.generate.ray_crew import RayCrew
from colddiff.verbs.generate.work import run_attempt


def main(arguments: list[str] | None = None) -> int:
    """Exit code of the attempt: 0 done, 1 failed, 4 stopped."""
    resolved, folder, number = handed_in("generate", arguments)
    with LogTee(lambda text: folder.write_log(number, text)):
        ray.init(log_to_driver=True, ignore_reinit_error=True)
        job = resolved.job_as(GenerateJob)
        return run_attempt(
            resolved,
            number,
            lambda resolved, plan: RayCrew(resolved, plan, say),
            {"job": resolved.to_dict()},
            gpus=job.resources.gpus * most_workers(job),
        )


if __name__ == "__main__":
    sys.exit(main())
