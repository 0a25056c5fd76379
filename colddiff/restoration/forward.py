"""Runs a checkpoint's R and D on batches of a fixed number of rows, for images of one shape."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from colddiff.checkpoints.references import LoadedCheckpoint
from colddiff.degradations import Degradation
from colddiff.errors import CheckpointError, DataError, SpecError
from colddiff.restoration.settings import RestoreSettings
from colddiff.restorers import Restorer, for_inference
from colddiff.restorers.precision import at_precision, warn_of_slow_bf16
from colddiff.sampling import sample
from colddiff.types import Image, ImageShape, Severity


@dataclass(frozen=True, slots=True)
class RestoredBatch:
    """A batch restored from one severity: input x_t, result x_0, and which rows stayed finite."""

    x_t: Image
    x_0: Image
    finite: Tensor


class Forward:
    """Restores batches of one shape; a row's result depends only on that row and on ``rows``.

    ``on_steps`` is called after each call of R with the number of images that advanced one step.
    """

    def __init__(
        self,
        checkpoint: LoadedCheckpoint,
        shape: ImageShape,
        settings: RestoreSettings,
        device: torch.device,
        on_steps: Callable[[int], None],
    ) -> None:
        R, self.D = _for_shape(checkpoint, shape)
        self.R = for_inference(R.to(device))
        warn_of_slow_bf16(settings.precision, device)
        self.rows = settings.rows(shape.height, shape.width)
        self._settings, self._device, self._on_steps = settings, device, on_steps

    def restored(
        self, images: Sequence[Image], omegas: Sequence[Mapping[str, Tensor]], start: int
    ) -> RestoredBatch:
        """Restore at most ``rows`` images [C, H, W], degraded to ``start`` first if so set."""
        count = len(images)
        # Padded with the last row: the order of summation depends on the number of rows.
        padded = [*range(count), *[count - 1] * (self.rows - count)]
        x = torch.stack([images[i] for i in padded]).to(self._device)
        names = omegas[0] if omegas else {}
        omega = {
            name: torch.stack([omegas[i][name] for i in padded]).to(self._device) for name in names
        }
        spec = self.D.spec.for_start(start)
        D = self.D if spec is self.D.spec else spec.build(self.D.shape)
        if self._settings.degrade:
            x = D.observe(x, torch.full((self.rows,), start), omega)
        finite = torch.ones(self.rows, dtype=torch.bool, device=self._device)

        def restore(x_t: Image, t: Severity) -> Image:
            with at_precision(self._settings.precision, x_t.device):
                x0_hat = self.R(x_t, t)
            x0_hat = x0_hat.float()
            valid = torch.isfinite(x0_hat).flatten(1).all(dim=1)
            finite.logical_and_(valid)
            self._on_steps(count)
            # D refuses a batch with NaN in it; zeroing the row saves the other rows.
            return torch.where(valid.view(-1, 1, 1, 1), x0_hat, 0.0)

        x_0 = sample(
            restore,
            D,
            x,
            omega,
            sampler=self._settings.sampler,
            severities=self._settings.steps(start),
        )
        return RestoredBatch(x[:count].cpu(), x_0[:count].cpu(), finite[:count].cpu())


def _for_shape(
    checkpoint: LoadedCheckpoint, shape: ImageShape
) -> tuple[Restorer, Degradation[Any]]:
    """R and D for images of ``shape``; raises DataError if they cannot be built for it."""
    job = checkpoint.spec
    if shape == job.shape:
        return checkpoint.restorer, checkpoint.degradation
    try:
        D, R = job.degradation.build(shape), job.restorer.build(shape)
        R.load_state_dict(checkpoint.restorer.state_dict(), assign=True)
    except (SpecError, CheckpointError) as error:
        problem = str(error)
    except RuntimeError:
        problem = f"the weights of {job.restorer.kind} are for images of {job.shape} only"
    else:
        return R, D
    raise DataError(f"images of {shape} px cannot be restored at their original size: {problem}")
