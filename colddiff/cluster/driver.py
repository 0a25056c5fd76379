"""`python -m colddiff.cluster.driver job.json --attempt N`: the driver of a job on a cluster."""

from __future__ import annotations

import argparse
import logging
import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from colddiff.errors import ERROR_LINE, ColddiffError, StoreError
from colddiff.machine.garbage import collect_seldom

if TYPE_CHECKING:
    from colddiff.jobs.attempt import Attempt

log = logging.getLogger("colddiff.cluster.driver")  # it is run as __main__
EACH_WORKER = {"worker_process_setup_hook": "colddiff.machine.garbage.collect_seldom"}
"""What Ray does first in every process that works for the job."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Drives an attempt; returns its exit code: 0 done, 1 failed, 4 stopped."""
    collect_seldom()  # before torch and Ray are imported
    import ray

    from colddiff.cluster.capacity import is_gone
    from colddiff.cluster.nodes.places import refuse_other_store
    from colddiff.cluster.turns.turn import job_turn
    from colddiff.jobs.attempt import Attempt
    from colddiff.jobs.driver import drive
    from colddiff.jobs.logs import log_to_stderr, printed
    from colddiff.jobs.resolve import ResolvedJob
    from colddiff.spec.documents import read_json_object

    parser = argparse.ArgumentParser(prog="colddiff.cluster.driver")
    parser.add_argument("job", type=Path, help="the staged job.json")
    parser.add_argument("--attempt", type=int, required=True)
    options = parser.parse_args(arguments)
    resolved = ResolvedJob.from_dict(read_json_object(options.job.read_bytes()))
    folder, number = resolved.folder, options.attempt
    attempt = Attempt(resolved, number)
    try:
        # Before its log is written there, too.
        refuse_other_store(folder, resolved.storage)
    except ColddiffError as error:
        return _ended(attempt, error)
    with printed(
        lambda text: folder.write_log(number, text),
        lambda text: folder.write_debug_log(number, text),
    ) as flush:
        log_to_stderr()
        ray.init(log_to_driver=True, ignore_reinit_error=True, runtime_env=EACH_WORKER)
        for line in sharing_folders(ray.nodes()):  # type: ignore[no-untyped-call]
            log.warning("%s", line)
        try:
            return drive(attempt, on_ray=True, turn=job_turn, gone=is_gone, flush=flush)
        except ColddiffError as error:
            return _ended(attempt, error)


def _ended(attempt: Attempt, error: ColddiffError) -> int:
    sys.stderr.write(f"{ERROR_LINE}{last_words(attempt, error)}\n")
    return 1


def last_words(attempt: Attempt, error: ColddiffError) -> str:
    """Why a driver ends that could not write a status: whoever follows the job is told this line.

    A store that it never reached lacks what `ray start` was not given; later it is an outage.
    """
    from colddiff.cluster.nodes.places import unreached_store

    begun = attempt.status.attempt > 0
    if begun or not isinstance(error, StoreError):
        return " ".join(str(error).split())
    return unreached_store(attempt.resolved.storage, error)


def sharing_folders(nodes: Iterable[Mapping[str, Any]]) -> list[str]:
    """A line for each host whose nodes share a folder of Ray, so that they can break jobs' code."""
    by_folder = Counter(
        (node["NodeManagerHostname"], str(Path(node["RayletSocketName"]).parent))
        for node in nodes
        if node["Alive"]
    )
    return [
        f"{count} nodes on {host} share {folder}: each unpacks this job's code there anew, and the "
        "others may end with ModuleNotFoundError; start each with a --temp-dir of its own"
        for (host, folder), count in sorted(by_folder.items())
        if count > 1
    ]


if __name__ == "__main__":
    sys.exit(main())
