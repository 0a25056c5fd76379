"""A rank's training inputs: its slice of each global batch, all randomness drawn by position."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from colddiff.data.readers.transformed import transform_of
from colddiff.degradations import Degradation
from colddiff.degradations.base import DrawImages
from colddiff.objective import draw_omega, draw_severities
from colddiff.ports import ShardSource
from colddiff.verbs.train.job import TrainJob


@dataclass(frozen=True, slots=True)
class Inputs:
    """One slice in host memory: ``x0`` as stored, uint8 or uint16 [B, C, H, W], ``t`` int64 [B],
    omega, and the ``crops`` of the job's transform, int64 [B, 3].
    """

    x0: Tensor
    crops: Tensor
    t: Tensor
    omega: dict[str, Tensor]

    def pinned(self) -> Inputs:
        """The same in page-locked memory, for asynchronous copies to a GPU."""
        omega = {name: value.pin_memory() for name, value in self.omega.items()}
        return Inputs(self.x0.pin_memory(), self.crops.pin_memory(), self.t.pin_memory(), omega)


def training_inputs(
    job: TrainJob,
    source: ShardSource,
    D: Degradation[Any],
    *,
    rank: int,
    world_size: int,
    start_step: int,
    images: DrawImages | None = None,
    pin: bool = False,
) -> Iterator[Inputs]:
    """Endless inputs of ``rank``, one slice per step, from 0-based optimizer step ``start_step``.

    ``images`` draws from the second set if D mixes one in; ``pin`` is for a GPU. Raises DataError
    if the images of ``source`` cannot be transformed to the job's shape.
    """
    transform = transform_of(source, job.augment, job.shape, "data")
    batches = source.batches(
        seed=job.seed,
        global_batch_size=job.global_batch_size,
        rank=rank,
        world_size=world_size,
        start_step=start_step,
    )
    while True:
        batch = next(batches)
        inputs = Inputs(
            x0=torch.from_numpy(np.ascontiguousarray(batch.images)),
            crops=transform.draw_crops(job.seed, batch.positions),
            t=draw_severities(job.seed, batch.positions, job.degradation.num_timesteps),
            omega=draw_omega(job.seed, batch.positions, D, images),
        )
        yield inputs.pinned() if pin else inputs
