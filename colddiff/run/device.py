"""Where a job computes in this process."""

from __future__ import annotations

import torch

from colddiff.jobspec import ResourcesSpec


def device_of(resources: ResourcesSpec) -> torch.device:
    """A GPU where the job asks for one and there is one, else the CPU."""
    return torch.device("cuda" if resources.gpus and torch.cuda.is_available() else "cpu")
