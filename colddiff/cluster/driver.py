"""`python -m colddiff.cluster.driver job.json --attempt N`: the driver of a job on a cluster."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import ray

from colddiff.jobs.attempt import Attempt
from colddiff.jobs.driver import drive
from colddiff.jobs.logs import log_to_stderr, printed
from colddiff.jobs.resolve import ResolvedJob
from colddiff.spec.documents import read_json_object


def main(arguments: Sequence[str] | None = None) -> int:
    """Drives an attempt; returns its exit code: 0 done, 1 failed, 4 stopped."""
    parser = argparse.ArgumentParser(prog="colddiff.cluster.driver")
    parser.add_argument("job", type=Path, help="the staged job.json")
    parser.add_argument("--attempt", type=int, required=True)
    options = parser.parse_args(arguments)
    resolved = ResolvedJob.from_dict(read_json_object(options.job.read_bytes()))
    folder, number = resolved.folder, options.attempt
    with printed(
        lambda text: folder.write_log(number, text),
        lambda text: folder.write_debug_log(number, text),
    ):
        log_to_stderr()
        ray.init(log_to_driver=True, ignore_reinit_error=True)
        return drive(Attempt(resolved, number), on_ray=True)


if __name__ == "__main__":
    sys.exit(main())
