"""What whoever submits a training is told of its fields: allowed, but seldom what was meant."""

from __future__ import annotations

from math import lcm

from colddiff.verbs.train.job import TrainJob


def evaluation_advice(job: TrainJob) -> list[str]:
    """A line if ``evaluate_every`` names steps without a checkpoint, as only those are evaluated.

    >>> evaluation_advice(TrainJob(evaluate_every=50, checkpoint_every=20, num_steps=400))
    ['evaluate_every=50: only checkpoints are evaluated, and with checkpoint_every=20 those of \
every 100 steps and the last; choose a multiple of 20, or checkpoint_every=50']
    """
    every, kept = job.evaluate_every, job.checkpoint_every
    if every is None or every % kept == 0:
        return []
    due = lcm(every, kept)
    found = f"those of every {due} steps and the last" if due < job.num_steps else "the last alone"
    return [
        f"evaluate_every={every}: only checkpoints are evaluated, and with checkpoint_every={kept} "
        f"{found}; choose a multiple of {kept}, or checkpoint_every={every}"
    ]
