"""Training with Ray Train v2 workers, and evaluation of checkpoints in a Ray task."""

from __future__ import annotations

import logging
import os
from contextlib import closing, suppress
from typing import Any

import ray
from ray.train import FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer

from colddiff.cluster.capacity import machines_up
from colddiff.cluster.nodes.places import denied_node_named
from colddiff.cluster.waiting import await_workers
from colddiff.cluster.worker_count import most_workers
from colddiff.errors import ColddiffError, Unreachable
from colddiff.jobs.attempt import Attempt
from colddiff.jobs.logs import log_to_stderr
from colddiff.jobs.resolve import ResolvedJob
from colddiff.jobs.runner import requested
from colddiff.jobs.tracking_run import join_tracker
from colddiff.tracking.open import null_tracker
from colddiff.verbs.train.checkpoint_evaluation import evaluate_step, report_evaluation
from colddiff.verbs.train.evaluation_watcher import EvaluationWatcher
from colddiff.verbs.train.job import TrainJob
from colddiff.verbs.train.ray_elastic import (
    NOT_AGAIN_S,
    RoomForMore,
    free_abandoned,
    reserve_anew,
    train_requester,
)
from colddiff.verbs.train.ray_restarts import Growth, fit_until_ended
from colddiff.verbs.train.work import train_rank

log = logging.getLogger(__name__)

NEVER_S = 1e9
NOT_USED = ("DatasetsCallback", "PlacementGroupCleanerCallback")
"""Ray Train's helpers that each start a process which imports all of Ray Train, 2 s of a core: for
Ray's own data sets, of which there are none, and to give back what a dead controller reserved,
which ``free_abandoned`` does without a dashboard too."""
PREEMPTION_WATCHER = "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER"
LOOKS_EVERY = ("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.25")
FEW = 8
"""Up to so many workers, Ray Train looks at them more often than every 2 s, which is how long the
end of a training and a dead worker went unnoticed; it asks each of them every time."""


def fit_on_ray(attempt: Attempt) -> None:
    """Runs Ray Train's workers until they end; checkpoints are evaluated in parallel."""
    resolved, folder, number = attempt.resolved, attempt.folder, attempt.number
    job = resolved.job_as(TrainJob)
    workers = most_workers(job) if job.workers == "all" else job.workers

    def evaluate(step: int) -> None:
        record = answer_of(_evaluation().remote(resolved.to_dict(), step))
        report_evaluation(attempt, step, record)

    growth = Growth(folder, number)

    def fit(start: int) -> None:
        if start > 1:
            say_restarting(attempt)
        free_abandoned()
        await_workers(attempt, job)
        attempt.hold_gpus(job.resources.num_gpus * most_workers(job))
        trainer = _trainer(
            resolved, number, start, workers, grow_after_s=0.0 if growth.helps else NOT_AGAIN_S
        )
        reserve_anew(folder, train_requester(trainer))
        try:
            trainer.fit()
            growth.ended()
        except Exception:
            growth.failed()
            raise
        finally:
            attempt.hold_gpus(0)

    with EvaluationWatcher(folder, job.evaluation_interval, job.num_steps, evaluate):
        fit_until_ended(fit, job, folder, number, say=attempt.report)
    folder.store.clear(folder.key("ray/"))


def say_restarting(attempt: Attempt) -> None:
    """Until new workers train, the progress is where the last ones came to, without their rate."""
    with suppress(Unreachable):
        reached = attempt.folder.progress(attempt.number)
        known = {name: reached[name] for name in ("step", "num_steps") if name in reached}
        attempt.progress(phase="restarting workers", **known)


def cores_held(job: TrainJob) -> int:
    """Cores that the workers held, as far as this machine has them."""
    return max(1, min(os.cpu_count() or 1, int(most_workers(job) * job.resources.cpus)))


class LeanTrainer(TorchTrainer):
    """Ray Train's trainer without the helper processes that nothing here uses."""

    def _create_default_callbacks(self) -> list[Any]:
        # Not called by a Ray that has no such method: it then starts them.
        callbacks = super()._create_default_callbacks()  # type: ignore[misc]  # of v2 alone
        return [one for one in callbacks if type(one).__name__ not in NOT_USED]


def _trainer(
    resolved: ResolvedJob, attempt: int, number: int, workers: Any, *, grow_after_s: float
) -> TorchTrainer:
    job = resolved.job_as(TrainJob)
    resources = {"CPU": job.resources.cpus}
    if job.resources.num_gpus:
        resources["GPU"] = job.resources.num_gpus
    if isinstance(workers, tuple):
        # How long Ray waits for workers on a lost machine before it starts with fewer.
        os.environ.setdefault("RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S", "15")
    if most_workers(job) <= FEW:
        os.environ.setdefault(*LOOKS_EVERY)
    # The preemption of the only machine is the end of its cluster.
    os.environ[PREEMPTION_WATCHER] = str(int(len(machines_up()) > 1))
    return LeanTrainer(
        _worker,
        train_loop_config={
            "job": resolved.to_dict(),
            "attempt": attempt,
            "most": workers[1] if isinstance(workers, tuple) else 0,
            "grow_after_s": grow_after_s,
        },
        scaling_config=ScalingConfig(
            num_workers=workers,
            use_gpu=job.resources.num_gpus > 0,
            resources_per_worker=resources,
            accelerator_type=job.resources.accelerator,
            # Ray would end the workers without a checkpoint: they leave by themselves to grow.
            elastic_resize_monitor_interval_s=NEVER_S,  # type: ignore[call-arg]  # of v2 alone
        ),
        run_config=RunConfig(
            # A unique name: Ray would resume a known one, but we resume from our checkpoints.
            name=f"{resolved.id}-{attempt}-{number}",
            storage_path=_ray_storage(resolved),
            # `fit_until_ended` decides which failures count, not Ray.
            failure_config=FailureConfig(max_failures=0),
        ),
    )


def _worker(config: dict[str, Any]) -> None:
    """Entry point of every worker process."""
    from colddiff.verbs.train.ray_context import RayContext

    log_to_stderr()
    resolved = ResolvedJob.from_dict(config["job"])
    wanted = requested(resolved.job_as(TrainJob).resources)
    grows = ray.train.get_context().get_world_size() < config["most"]
    context = RayContext(RoomForMore(wanted, after_s=config["grow_after_s"]) if grows else None)
    # Closed whatever happens: this process may go on to train another job.
    with (
        denied_node_named(resolved.storage),
        closing(join_tracker(resolved) if context.rank == 0 else null_tracker()) as tracker,
    ):
        train_rank(resolved, context, config["attempt"], tracker, watched=True)


def _evaluation() -> Any:
    """A Ray task that evaluates one checkpoint; it reserves no CPU, so it fits small clusters."""

    def run(data: dict[str, Any], step: int) -> dict[str, Any]:
        log_to_stderr()
        resolved = ResolvedJob.from_dict(data)
        with denied_node_named(resolved.storage), closing(join_tracker(resolved)) as tracker:
            return evaluate_step(resolved, resolved.folder, tracker, step)

    return ray.remote(num_cpus=0, max_retries=1)(run)


def answer_of(task: Any) -> Any:
    """What a Ray task returns; raises an error of ours as it was: Ray's text is a traceback."""
    try:
        return ray.get(task)
    except ColddiffError as error:  # of a class that is Ray's as well
        raise getattr(error, "cause", error) from None


def _ray_storage(resolved: ResolvedJob) -> str:
    """Address of Ray Train's controller state (a few kilobytes); no checkpoints go there."""
    return f"{resolved.storage}/jobs/{resolved.id}/ray"
