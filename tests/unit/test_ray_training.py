"""What Ray Train is asked to start beside a training's workers."""

from __future__ import annotations

import pytest
from ray.train import ScalingConfig
from ray.train.torch import TorchTrainer

from colddiff.verbs.train.on_ray import NOT_USED, LeanTrainer


def helpers(of: type[TorchTrainer]) -> set[str]:
    trainer = of(lambda config: None, scaling_config=ScalingConfig(num_workers=1))
    return {type(one).__name__ for one in trainer._create_default_callbacks()}  # type: ignore[attr-defined]  # of v2 alone


@pytest.mark.filterwarnings("ignore::DeprecationWarning:ray.data")  # of Ray about itself
def test_helpers_that_nothing_here_uses_are_not_started() -> None:
    # If Ray renames them, they are started again: each costs a process that imports Ray Train.
    assert helpers(TorchTrainer) - helpers(LeanTrainer) == set(NOT_USED)
