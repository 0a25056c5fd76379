"""`python -m colddiff.verbs.train.on_ray job.json --attempt N`: one attempt under Ray."""

from __future__ import annotations

import os
import sys
from typing import Any

import ray
from ray.train import FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer

from colddiff.cluster.driver import handed_in
from colddiff.cluster.worker_count import most_workers
from colddiff.jobs.attempt import Attempt
from colddiff.jobs.folder import JobFolder
from colddiff.jobs.log import say
from colddiff.jobs.log_tee import LogTee
from colddiff.jobs.resolve import ResolvedJob
from colddiff.jobs.sigterm import stop_on_sigterm
from colddiff.jobs.tracking_run import ended_with_work, open_tracker
from colddiff.stores.open import open_store
from colddiff.verbs.train.checkpoint_evaluation import evaluate_step
from colddiff.verbs.train.evaluation_watcher import EvaluationWatch
from colddiff.verbs.train.job import TrainJob
from colddiff.verbs.train.preflight import prepare
from colddiff.verbs.train.ray_restarts import fit_until_ended
from colddiff.verbs.train.work import end_training, train_rank


def main(arguments: list[str] | None = None) -> int:
    """Exit code of the attempt: 0 done, 1 failed, 4 stopped."""
    resolved, folder, number = handed_in("train", arguments)
    job = resolved.job_as(TrainJob)
    if job.workers == "all":
        ray.init(log_to_driver=True, ignore_reinit_error=True)
    most = most_workers(job)
    workers = most if job.workers == "all" else job.workers
    attempt = Attempt(
        folder,
        number,
        num_steps=job.num_steps,
        gpus=job.resources.gpus * most,
        limits=job.limits,
    )
    with (
        LogTee(lambda text: folder.write_log(number, text)),
        stop_on_sigterm(folder, number),
    ):
        return attempt.run(
            lambda: _train(resolved, folder, attempt, workers),
            {"host": os.uname().nodename, "pid": os.getpid(), "job": resolved.to_dict()},
        )


def _train(
    resolved: ResolvedJob, folder: JobFolder, attempt: Attempt, workers: Any
) -> dict[str, Any]:
    attempt.phase("preparing")
    tracker = prepare(resolved, folder)
    attempt.phase("")
    with ended_with_work(tracker):
        _fit(resolved, folder, attempt.attempt, workers)
        attempt.phase("evaluating")
        return end_training(resolved, folder, tracker, attempt.attempt)


def _fit(resolved: ResolvedJob, folder: JobFolder, attempt: int, workers: Any) -> None:
    """Runs the workers to their end; checkpoints are evaluated meanwhile."""
    job = resolved.job_as(TrainJob)
    with EvaluationWatch(
        folder,
        job.evaluated_every,
        job.num_steps,
        lambda step: ray.get(_evaluation().remote(resolved.to_dict(), step)),
        say,
    ):
        fit_until_ended(
            lambda number: _trainer(resolved, attempt, number, workers).fit(),
            job,
            folder,
            attempt,
        )
    for item in list(folder.store.list(folder.key("ray/"))):
        folder.store.delete(item.key)


def _trainer(resolved: ResolvedJob, attempt: int, number: int, workers: Any) -> TorchTrainer:
    job = resolved.job_as(TrainJob)
    resources = {"CPU": job.resources.cpus}
    if job.resources.gpus:
        resources["GPU"] = job.resources.gpus
    if isinstance(workers, tuple):
        # How long Ray waits for a machine that is gone, and it has just lost one.
        os.environ.setdefault("RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S", "15")
    return TorchTrainer(
        _worker,
        train_loop_config={"job": resolved.to_dict(), "attempt": attempt},
        scaling_config=ScalingConfig(
            num_workers=workers,
            use_gpu=job.resources.gpus > 0,
            resources_per_worker=resources,
            accelerator_type=job.resources.accelerator,
        ),
        run_config=RunConfig(
            # A name of its own: Ray resumes one it knows, and resuming is the checkpoints' work.
            name=f"{resolved.id}-{attempt}-{number}",
            storage_path=_ray_storage(resolved),
            # Which failures count is not Ray's to decide: `fit_until_ended`.
            failure_config=FailureConfig(max_failures=0),
        ),
    )


def _worker(config: dict[str, Any]) -> None:
    """What every worker process runs."""
    from colddiff.verbs.train.ray_context import RayContext

    resolved = ResolvedJob.from_dict(config["job"])
    train_rank(resolved, RayContext(), config["attempt"], watched=True)


def _evaluation() -> Any:
    """A Ray task that evaluates one checkpoint; it asks for no CPU, so small clusters have room."""

    def run(data: dict[str, Any], step: int) -> None:
        resolved = ResolvedJob.from_dict(data)
        folder = JobFolder(open_store(resolved.storage), resolved.id)
        tracker = open_tracker(resolved, join=True)
        evaluate_step(resolved, folder, tracker, step)
        tracker.flush()

    return ray.remote(num_cpus=0, max_retries=1)(run)


def _ray_storage(resolved: ResolvedJob) -> str:
    """Where Ray Train keeps its controller's few kilobytes; checkpoints never go there."""
    return f"{resolved.storage}/jobs/{resolved.id}/ray"


if __name__ == "__main__":
    sys.exit(main())
