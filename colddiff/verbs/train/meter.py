"""Losses and times of a training loop between two log lines, summed over ranks."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from colddiff.errors import DivergedError
from colddiff.objective import draw_severities
from colddiff.ports import WorkerContext
from colddiff.verbs.train.inputs import Inputs
from colddiff.verbs.train.job import TrainJob

BUCKETS = 8


class SeverityBuckets:
    """The severities 1..T in eight ranges of equal length (fewer where T < 8)."""

    def __init__(self, num_timesteps: int) -> None:
        self._T = num_timesteps
        self.count = min(BUCKETS, num_timesteps)
        self.names = tuple(self._name(bucket) for bucket in range(self.count))

    def of(self, t: Tensor) -> Tensor:
        """Bucket of each severity, int64 [B]."""
        return (t - 1) * self.count // self._T

    def _name(self, bucket: int) -> str:
        # The smallest t - 1 whose bucket is this one, and the one before the next bucket's.
        first, following = (-(-b * self._T // self.count) for b in (bucket, bucket + 1))
        width = len(str(self._T))
        return f"t_{first + 1:0{width}}_{following:0{width}}"


class Meter:
    """Sums of losses and times between two log lines, and the collective that adds them over ranks.

    Values stay on the device until they are read, so that no step has to wait for them.
    """

    def __init__(
        self, ctx: WorkerContext, job: TrainJob, mfu_per_image_s: float | None = None
    ) -> None:
        self._ctx, self._job, self._mfu_per_image_s = ctx, job, mfu_per_image_s
        self._buckets = SeverityBuckets(job.degradation.num_timesteps)
        self._by_severity = torch.zeros(2, self._buckets.count, device=ctx.device)
        self._gradient_norm: Tensor | None = None
        self._pending: list[Tensor] = []
        self._loss = 0.0
        self._steps, self._steps_before = 0, 0
        self._waited_s = 0.0
        self._since = time.perf_counter()

    def add(self, losses: Tensor, batch: Inputs) -> None:
        """Adds this rank's image losses of one step, float32 [B] on the device."""
        self._pending.append(losses.sum())
        bucket = self._buckets.of(batch.t).to(self._ctx.device, non_blocking=True)
        self._by_severity.index_add_(1, bucket, torch.stack([losses, torch.ones_like(losses)]))

    def waited(self, seconds: float) -> None:
        """Adds the time that a step waited for its inputs, s."""
        self._waited_s += seconds

    def gradient(self, norm: Tensor) -> None:
        """Sets the norm of a step's gradient before clipping; the last one is logged."""
        self._gradient_norm = norm

    def sync(self, step: int, *flags: bool) -> list[bool]:
        """Sums over ranks; returns for each flag whether any rank set it, the same on all ranks.

        Raises DivergedError if a step's loss is not finite.
        """
        raised = torch.tensor([float(flag) for flag in flags], device=self._ctx.device)
        summed = self._ctx.all_reduce(torch.cat([raised, *(p.view(1) for p in self._pending)]))
        numbers = summed.tolist()
        losses = numbers[len(flags) :]
        first = step - len(losses)
        for offset, loss in enumerate(losses):
            if not np.isfinite(loss):
                self._diverged(first + offset)
            self._loss += loss / self._job.global_batch_size
        self._steps += len(losses)
        self._pending.clear()
        return [number > 0 for number in numbers[: len(flags)]]

    def _diverged(self, step: int) -> None:
        size, T = self._job.global_batch_size, self._job.degradation.num_timesteps
        t = draw_severities(self._job.seed, np.arange(step * size, (step + 1) * size), T)
        raise DivergedError(
            f"the loss of optimizer step {step + 1} is not finite (severities {int(t.min())}.."
            f"{int(t.max())}, global positions {step * size}..{(step + 1) * size - 1})"
        )

    def read(self) -> dict[str, float]:
        """Means since the last call; a collective, so every rank calls it at the same step."""
        now = time.perf_counter()
        elapsed, steps = max(now - self._since, 1e-9), max(self._steps, 1)
        loss = f"train/loss_{self._job.loss}"
        timed = self._steps - self._steps_before
        images_per_s = timed * self._job.global_batch_size / elapsed
        numbers = {loss: self._loss / steps, **self._losses_by_severity(loss)}
        if self._gradient_norm is not None:
            numbers["train/grad_norm"] = float(self._gradient_norm)
        numbers |= {
            "train/images_per_s": images_per_s,
            "time/step_s": elapsed / max(timed, 1),
            "time/data_s": self._waited_s / max(timed, 1),
        }
        if self._mfu_per_image_s is not None:
            numbers["train/mfu"] = self._mfu_per_image_s * images_per_s / self._ctx.world_size
        if self._ctx.device.type == "cuda":
            peak = torch.cuda.max_memory_allocated(self._ctx.device)
            numbers["system/gpu_peak_allocated_megabytes"] = peak / 1e6
        self._loss, self._steps, self._waited_s, self._since = 0.0, 0, 0.0, now
        self._steps_before = 0
        return numbers

    def state(self) -> dict[str, Any]:
        """What was summed since the last call of ``read``, JSON-ready; a collective.

        ``resume`` goes on from it: what is logged next then covers the same steps as without a kill
        between.
        """
        sums = self._ctx.all_reduce(self._by_severity.clone())
        return {"loss": self._loss, "steps": self._steps, "by_severity": sums.tolist()}

    def resume(self, state: Mapping[str, Any]) -> None:
        """Takes over the sums of ``state``, if there are any; rates are of steps from now on."""
        if not state:
            return
        self._loss, self._steps = float(state["loss"]), int(state["steps"])
        self._steps_before = self._steps
        if self._ctx.rank == 0:
            self._by_severity += torch.tensor(state["by_severity"], device=self._ctx.device)

    def _losses_by_severity(self, loss: str) -> dict[str, float]:
        sums, counts = self._ctx.all_reduce(self._by_severity).tolist()
        self._by_severity.zero_()
        return {
            f"{loss}/{name}": total / count
            for name, total, count in zip(self._buckets.names, sums, counts, strict=True)
            if count
        }


class LossHistory:
    """(step, loss) of a whole job, at most ``LONGEST`` points; stored in its checkpoints."""

    LONGEST = 4000

    def __init__(self, points: Sequence[Sequence[float]] = ()) -> None:
        self._points = [(int(step), float(loss)) for step, loss in points]

    def add(self, step: int, loss: float) -> None:
        """Adds the loss logged at ``step``; with too many points every other one is dropped."""
        self._points.append((step, loss))
        if len(self._points) > self.LONGEST:
            self._points = self._points[1::2]

    @property
    def points(self) -> list[tuple[int, float]]:
        """JSON-ready, steps ascending."""
        return list(self._points)
