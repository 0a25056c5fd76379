"""What a training loop measures between two log lines, and the collective that spreads it."""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from colddiff.engine.inputs import Inputs
from colddiff.errors import DivergedError
from colddiff.jobspec import TrainJob
from colddiff.objective import draw_severities
from colddiff.ports import WorkerContext


class Meter:
    """Sums of losses and times between two log lines, and the collective that spreads them."""

    def __init__(self, ctx: WorkerContext, job: TrainJob) -> None:
        self._ctx, self._job = ctx, job
        self._pending: list[Tensor] = []
        self._loss = 0.0
        self._steps = 0
        self._waited_s = 0.0
        self._since = time.perf_counter()
        self._told = 0.0
        self._numbers: dict[str, float] = {}

    def add(self, loss: Tensor, batch: Inputs) -> None:
        self._pending.append(loss)
        self._waited_s += batch.waited_s

    def sync(self, step: int, stop: bool) -> bool:
        """Adds up over ranks; returns whether any rank was asked to stop, the same on all."""
        flag = torch.tensor([float(stop)], device=self._ctx.device)
        summed = self._ctx.all_reduce(torch.cat([flag, *(p.view(1) for p in self._pending)]))
        stopped, *losses = summed.tolist()
        first = step - len(losses)
        for offset, loss in enumerate(losses):
            if not np.isfinite(loss):
                self._diverged(first + offset)
            self._loss += loss / self._job.global_batch_size
        self._steps += len(losses)
        self._pending.clear()
        return bool(stopped)

    def _diverged(self, step: int) -> None:
        size, T = self._job.global_batch_size, self._job.degradation.num_timesteps
        t = draw_severities(self._job.seed, np.arange(step * size, (step + 1) * size), T)
        raise DivergedError(
            f"the loss of optimizer step {step + 1} is not finite (severities {int(t.min())}.."
            f"{int(t.max())}, global positions {step * size}..{(step + 1) * size - 1})"
        )

    def read(self) -> dict[str, float]:
        now = time.perf_counter()
        elapsed, steps = max(now - self._since, 1e-9), max(self._steps, 1)
        numbers = {
            f"train/loss_{self._job.loss}": self._loss / steps,
            "train/images_per_s": steps * self._job.global_batch_size / elapsed,
            "time/step_s": elapsed / steps,
            "time/data_s": self._waited_s / steps,
        }
        self._loss, self._steps, self._waited_s, self._since = 0.0, 0, 0.0, now
        return numbers

    def quiet_s(self) -> float:
        return time.monotonic() - self._told

    def told(self) -> None:
        self._told = time.monotonic()


class LossHistory:
    """(step, loss) of a whole job, at most ``LONGEST`` points; it travels in its checkpoints."""

    LONGEST = 4000

    def __init__(self, points: Sequence[Sequence[float]] = ()) -> None:
        self._points = [(int(step), float(loss)) for step, loss in points]

    def add(self, step: int, loss: float) -> None:
        """Takes the loss logged at ``step``; when there are too many points, every other goes."""
        self._points.append((step, loss))
        if len(self._points) > self.LONGEST:
            self._points = self._points[1::2]

    @property
    def points(self) -> list[tuple[int, float]]:
        """JSON-ready, steps rising."""
        return list(self._points)
