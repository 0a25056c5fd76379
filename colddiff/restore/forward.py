"""R and D of a checkpoint for images of one shape, run on a fixed number of rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from colddiff.checkpoints.references import LoadedCheckpoint
from colddiff.degradations import Degradation
from colddiff.errors import CheckpointError, DataError, SpecError
from colddiff.restore.settings import RestoreSettings
from colddiff.restorers import Restorer, for_inference
from colddiff.sampling import sample
from colddiff.types import Image, ImageShape, Severity


@dataclass(frozen=True, slots=True)
class Outcome:
    """Of images from one severity: what R was given, x_0, and whose estimates were finite."""

    given: Image
    x_0: Image
    finite: Tensor


class Forward:
    """Restores batches of one shape; a row's result depends on that row and ``rows`` alone.

    ``on_steps`` hears after each call of R how many images went one step on.
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
        self.rows = settings.rows(shape.height, shape.width)
        self._settings, self._device, self._on_steps = settings, device, on_steps

    def restored(
        self, images: Sequence[Image], omegas: Sequence[Mapping[str, Tensor]], start: int
    ) -> Outcome:
        """x_0 of at most ``rows`` images [C, H, W], taken as they are or degraded to ``start``."""
        count = len(images)
        # The last row fills up: a batch of fewer rows would sum in another order.
        filled = [*range(count), *[count - 1] * (self.rows - count)]
        x = torch.stack([images[i] for i in filled]).to(self._device)
        names = omegas[0] if omegas else {}
        omega = {
            name: torch.stack([omegas[i][name] for i in filled]).to(self._device) for name in names
        }
        spec = self.D.spec.for_start(start)
        D = self.D if spec is self.D.spec else spec.build(self.D.shape)
        if self._settings.degrade:
            x = D.observe(x, torch.full((self.rows,), start), omega)
        finite = torch.ones(self.rows, dtype=torch.bool, device=self._device)

        def restore(x_t: Image, t: Severity) -> Image:
            x0_hat = self.R(x_t, t)
            fine = torch.isfinite(x0_hat).flatten(1).all(dim=1)
            finite.logical_and_(fine)
            self._on_steps(count)
            # D refuses a batch with NaN in it; only this row is lost, not its neighbours.
            return torch.where(fine.view(-1, 1, 1, 1), x0_hat, 0.0)

        x_0 = sample(
            restore,
            D,
            x,
            omega,
            sampler=self._settings.sampler,
            severities=self._settings.steps(start),
        )
        return Outcome(x[:count].cpu(), x_0[:count].cpu(), finite[:count].cpu())


def _for_shape(
    checkpoint: LoadedCheckpoint, shape: ImageShape
) -> tuple[Restorer, Degradation[Any]]:
    """Raises DataError where the network or D cannot be had for images of ``shape``."""
    job = checkpoint.spec
    if shape == job.shape:
        return checkpoint.restorer, checkpoint.degradation
    try:
        D, R = job.degradation.build(shape), job.restorer.build(shape)
        R.load_state_dict(checkpoint.restorer.state_dict(), assign=True)
    except (SpecError, CheckpointError) as error:
        problem = str(error)
    except RuntimeError:
        problem = f"the weights of {job.restorer.kind} fit images of {job.shape} only"
    else:
        return R, D
    raise DataError(f"images of {shape} px cannot be restored at their own size: {problem}")
