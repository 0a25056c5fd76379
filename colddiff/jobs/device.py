"""The device a job computes on in this process."""

from __future__ import annotations

import torch

from colddiff.errors import SpecError
from colddiff.jobs.job import ResourcesSpec


def device_of(resources: ResourcesSpec) -> torch.device:
    """A GPU if the job requests one and one is available, else the CPU."""
    return torch.device("cuda" if resources.num_gpus and torch.cuda.is_available() else "cpu")


def refuse_idle_gpu(resources: ResourcesSpec) -> None:
    """Raises SpecError if a worker was assigned a GPU that torch cannot use.

    It would otherwise run on the CPU, at the price of a GPU and a hundredth of its speed.
    """
    if resources.num_gpus and not torch.cuda.is_available():
        raise SpecError(
            [
                (
                    "resources.gpus",
                    f"is {resources.num_gpus:g}, but torch {torch.__version__} on this worker can "
                    "use no GPU; install a build of torch for its GPU, or submit with "
                    "resources.gpus=0",
                )
            ]
        )
