"""Where a job computes in this process."""

from __future__ import annotations

import torch

from colddiff.errors import SpecError
from colddiff.jobs.job import ResourcesSpec


def device_of(resources: ResourcesSpec) -> torch.device:
    """A GPU where the job asks for one and there is one, else the CPU."""
    return torch.device("cuda" if resources.gpus and torch.cuda.is_available() else "cpu")


def refuse_idle_gpu(resources: ResourcesSpec) -> None:
    """For a worker that a cluster gave a GPU: raises SpecError where torch cannot use it.

    It would go on on the CPU, at the price of a GPU and a hundredth of its speed.
    """
    if resources.gpus and not torch.cuda.is_available():
        raise SpecError(
            [
                (
                    "resources.gpus",
                    f"is {resources.gpus:g}, and on this worker torch {torch.__version__} can use "
                    "no GPU; install a build of torch for its GPU, or submit with resources.gpus=0",
                )
            ]
        )
