"""What Ray Train is asked to start beside a training's workers, and what is said of a restart."""

from __future__ import annotations

import pytest
from ray.train import ScalingConfig
from ray.train.torch import TorchTrainer

from colddiff.jobs.attempt import Attempt
from colddiff.jobs.folder import JobFolder
from colddiff.jobs.resolve import ResolvedJob
from colddiff.stores.memory_store import MemoryStore
from colddiff.verbs.train.job import TrainJob
from colddiff.verbs.train.on_ray import NOT_USED, LeanTrainer, say_restarting


def helpers(of: type[TorchTrainer]) -> set[str]:
    trainer = of(lambda config: None, scaling_config=ScalingConfig(num_workers=1))
    return {type(one).__name__ for one in trainer._create_default_callbacks()}  # type: ignore[attr-defined]  # of v2 alone


@pytest.mark.filterwarnings("ignore::DeprecationWarning:ray.data")  # of Ray about itself
def test_helpers_that_nothing_here_uses_are_not_started() -> None:
    # If Ray renames them, they are started again: each costs a process that imports Ray Train.
    assert helpers(TorchTrainer) - helpers(LeanTrainer) == set(NOT_USED)


def test_while_workers_are_restarted_nobody_is_told_their_rate() -> None:
    folder = JobFolder(MemoryStore(), "train-x-00000000")
    resolved = ResolvedJob(folder.job_id, "x", TrainJob(), "/nowhere", "", {}, 1.0, {}, {})
    attempt = Attempt(resolved, 1, folder=folder)
    say_restarting(attempt)
    assert folder.progress(1) == {"phase": "restarting workers"}
    attempt.progress(phase="training", step=7, num_steps=9, images_per_s=84.0, eta_s=1.0, loss=0.1)
    say_restarting(attempt)
    assert folder.progress(1) == {"phase": "restarting workers", "step": 7, "num_steps": 9}
