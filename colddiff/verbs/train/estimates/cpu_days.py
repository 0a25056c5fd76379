"""Whether a training that asks for no GPU would take days, said as it is submitted."""

from __future__ import annotations

import os
from collections.abc import Callable

import torch

from colddiff.jobs.runner import Capacity
from colddiff.machine.wording import counted
from colddiff.verbs.train.estimates.cost import at_most_flops, cost_of
from colddiff.verbs.train.job import TrainJob

FLOPS_PER_CORE_S = 60e9
"""What both networks reach in training on a server's core, in fp32 (45 to 75 GFLOP/s)."""
DAY_S = 86_400.0


def cpu_advice(job: TrainJob, capacity: Callable[[], Capacity | None]) -> list[str]:
    """A line if ``job`` asks for no GPU and would take over a day on its CPUs.

    ``capacity`` asks the cluster, and is called only where even one core would need a day; None
    where the job runs in this process, with all its cores.
    """
    if job.resources.num_gpus:
        return []
    images = job.num_steps * job.global_batch_size
    if at_most_flops(job) * images / FLOPS_PER_CORE_S < DAY_S:
        return []
    flops = cost_of(job).training_flops * images
    if flops / FLOPS_PER_CORE_S < DAY_S:
        return []
    found = capacity()
    cores = (os.cpu_count() or 1) if found is None else _cores(job, found)
    days = flops / (cores * FLOPS_PER_CORE_S) / DAY_S
    if days < 1:
        return []
    gpus = torch.cuda.device_count()
    if found is not None:
        gpus = int(sum(machine.get("GPU", 0.0) for machine in found.machines))
    has = f"{'this machine' if found is None else 'the cluster'} has "
    way = f"{has}{counted(gpus, 'GPU')}: resources.gpus=auto gives each worker one"
    return [
        f"without a GPU this takes about {counted(round(days), 'day', ',')} ({flops:.2g} "
        f"FLOP, {counted(cores, 'core', 'g')}, an assumed {FLOPS_PER_CORE_S / 1e9:.0f} "
        "GFLOP/s each; `--dry-run --rate auto` measures one process here); "
        f"{way if gpus else f'{has}none: train where there are some, or take fewer num_steps'}"
    ]


def _cores(job: TrainJob, capacity: Capacity) -> float:
    if job.workers == "all":
        most = max(1, capacity.room(job.resources))
    else:
        most = job.workers[1] if isinstance(job.workers, tuple) else job.workers
    return max(1.0, job.resources.cpus) * most
