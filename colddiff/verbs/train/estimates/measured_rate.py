"""Images per second of a training on this machine, measured on made-up images."""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass

import numpy as np
import torch

from colddiff.jobs.job import AUTO
from colddiff.machine.load import busy_machine
from colddiff.machine.wording import counted
from colddiff.objective import draw_severities, restoration_loss
from colddiff.restorers.precision import at_precision
from colddiff.synthetic import synthetic_images, synthetic_omega
from colddiff.verbs.train.estimates.cost import si_text
from colddiff.verbs.train.job import TrainJob

MOST_S = 20.0
"""How long a measurement takes at most."""
ENOUGH_STEPS = 8
MUCH_FASTER = 1.3
"""Than all threads: one alone is never, where no others want the cores."""
SLOW_S = 0.5
"""Of a step with one image that is taken again, as it may have waited for other work."""


@dataclass(frozen=True, slots=True)
class MeasuredRate:
    """What one process on this machine trains."""

    images_per_s: float
    images: int
    """Images of each of the measured steps."""
    device: str
    busy: str = ""
    """That other work ran meanwhile, if it did."""

    def line(self, flops_per_image: float) -> str:
        """For people, with FLOP/s, to set beside what is assumed where nothing is measured."""
        measured = (
            f"measured here: {self.images_per_s:.4g} images/s "
            f"({si_text(self.images_per_s * flops_per_image)}FLOP/s), {self.images} at a time, by "
            f"one process on {self.device}"
        )
        return f"{measured}; {self.busy}" if self.busy else measured


def measured_rate(job: TrainJob, most_s: float | None = None) -> MeasuredRate:
    """Trains ``job``'s network on this machine, for ``MOST_S`` or ``most_s`` s; keeps nothing.

    Degradation, both passes and the optimizer are in it; reading images, checkpoints and
    evaluations are not. On a GPU where there is one and ``job`` asks for any. As many images at a
    time as fit into the time, at most those of a step.
    """
    most_s, busy = MOST_S if most_s is None else most_s, busy_machine()
    until = time.perf_counter() + 0.9 * most_s  # building the network is in it
    wants = job.resources.gpus == AUTO or job.resources.gpus > 0
    device = torch.device("cuda" if wants and torch.cuda.is_available() else "cpu")
    run = _Steps(job, device)
    run.take(1)  # what is done once, such as tables of D
    size = min(job.max_batch_per_worker or job.global_batch_size, job.global_batch_size)
    one_s = run.take(1)
    while one_s > SLOW_S and time.perf_counter() + one_s < until - 0.75 * most_s:
        # On a busy machine one step may take a hundred times longer than the next.
        one_s = min(one_s, run.take(1))
    while size > 1 and size * one_s > (until - time.perf_counter()) / 3:
        size //= 2
    found: list[float] = []
    last = size * one_s
    while len(found) < ENOUGH_STEPS and time.perf_counter() + last < until:
        found.append(last := run.take(size))
    if not found:
        size, found = 1, [one_s]
    # The first one of another size allocates its memory.
    steady = found[1:] or found
    rate = size / statistics.median(steady)
    if device.type == "cuda":
        return MeasuredRate(rate, size, torch.cuda.get_device_name(device))
    left_s = until + 0.1 * most_s - time.perf_counter()
    return MeasuredRate(rate, size, _cpu(), _faster_alone(run, size, rate, left_s) or busy)


def _faster_alone(run: _Steps, size: int, rate: float, most_s: float) -> str:
    """A line where one thread trains faster than all, which then wait for other work; else ""."""
    threads = torch.get_num_threads()
    if threads == 1 or threads * size / rate > most_s:
        return ""
    torch.set_num_threads(1)
    try:
        alone = size / run.take(size)
    finally:
        torch.set_num_threads(threads)
    if alone < MUCH_FASTER * rate:
        return ""
    return (
        f"other work runs on this machine: with OMP_NUM_THREADS=1 it was {alone:.4g} images/s, "
        "for --rate too"
    )


class _Steps:
    """Optimizer steps of a job on made-up images, without a store, data or other ranks."""

    def __init__(self, job: TrainJob, device: torch.device) -> None:
        self._job, self._device = job, device
        self._D = job.degradation.build(job.shape)
        self._restorer = job.restorer.build(job.shape).to(device).train()
        self._optimizer = torch.optim.Adam(self._restorer.parameters(), fused=True)

    def take(self, size: int) -> float:
        """Seconds of one step with ``size`` images; making the images is not counted."""
        job, device = self._job, self._device
        x0 = synthetic_images(job.shape, min(size, 8)).repeat(-(-size // 8), 1, 1, 1)[:size]
        omega = synthetic_omega(self._D, size)
        t = draw_severities(0, np.arange(size), self._D.num_timesteps).to(device)
        began = time.perf_counter()
        x0, omega = x0.to(device), {name: value.to(device) for name, value in omega.items()}
        self._optimizer.zero_grad(set_to_none=True)
        with at_precision(job.precision, device):
            losses = restoration_loss(self._restorer, self._D, x0, t, omega, job.loss)
        torch.autograd.backward(losses.mean())
        self._optimizer.step()
        float(losses.detach().sum())  # waits for the device
        return time.perf_counter() - began


def _cpu() -> str:
    threads = torch.get_num_threads()
    return f"{counted(threads, 'thread')} of this CPU"
