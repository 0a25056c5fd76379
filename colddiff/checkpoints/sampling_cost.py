"""What calls of a checkpoint's network cost: FLOPs, and hours at the rate of a training."""

from __future__ import annotations

from typing import TYPE_CHECKING

from colddiff.jobs.verb import VERBS
from colddiff.machine.wording import counted

if TYPE_CHECKING:
    from colddiff.verbs.train.job import TrainJob

FORWARD_PART = 3
"""A training image costs three calls of the network: one forward, and backward twice that."""


def cost_of_calls(
    trained: TrainJob, calls: int, rate: str | None = None
) -> tuple[float, float | None]:
    """FLOPs and hours of so many calls of the network, one image each; no hours without a rate.

    ``rate`` is that of a training on the same machine, as `submit train --dry-run` takes it.
    """
    of_training = trained.model_copy(
        update={"num_steps": max(1, calls), "global_batch_size": 1, "workers": 1}
    )
    found = VERBS["train"].dry_run(of_training, rate).data["estimate"]
    hours = found["hours"]
    flops = found["forward_flops_per_image"] * calls
    return flops, None if hours is None else hours / FORWARD_PART


def calls_line(trained: TrainJob, calls: int, images: int | None) -> tuple[str, float | None]:
    """Network calls and their FLOPs in one line, for so many ``calls`` an image; and the FLOPs.

    Where the number of images is not known, of one; then no FLOPs are returned.
    """
    flops, _ = cost_of_calls(trained, calls * (images or 1))
    each = f"{counted(calls, 'call', ',')} of the network an image"
    if images is None:
        return f"{each}: {flops:.3g} FLOP an image", None
    return f"{each}, {calls * images:,} in all: {flops:.3g} FLOP", flops
