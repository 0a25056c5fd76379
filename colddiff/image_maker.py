"""Images for given seeds: x_T from a terminal or degraded images, restored by a sampler."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from colddiff.degradations import Degradation
from colddiff.degradations.base import DrawImages
from colddiff.errors import ColddiffError, SpecError
from colddiff.ports import ShardSource
from colddiff.restorers.precision import at_precision
from colddiff.rng import stream, streams
from colddiff.sampling import Restore, Severities, break_symmetry, falling, sample
from colddiff.terminal import Terminal
from colddiff.transforms import eight_bit, normalise
from colddiff.types import Image, ProgressCallback, Severity

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, slots=True)
class Start:
    """Starts of trajectories, in host memory: x_T [B, C, H, W] and omega.

    For images of a set ``x`` holds x0 instead, which is degraded on the device.
    """

    x: Tensor
    omega: dict[str, Tensor]
    noise: Tensor | None = None


@dataclass(frozen=True, slots=True)
class ImageMaker:
    """A restorer R with everything its images depend on; row i is a function of seed i alone.

    Args:
        R: (x_t, t) -> x0_hat on ``device``, in evaluation mode.
        D: the degradation, on ``device``.
        terminal: the distribution of x_T; None if ``source`` provides images to degrade.
        source: packed images; seed n selects image n.
        images: draws from the second set if D mixes one in.
    """

    R: Restore
    D: Degradation[Any]
    sampler: str
    severities: Severities = None
    symmetry_noise: float = 0.0
    terminal: Terminal | None = None
    source: ShardSource | None = None
    images: DrawImages | None = None
    precision: str = "fp32"
    device: torch.device | str = "cpu"

    def start(self, seeds: Sequence[int]) -> Start:
        """The starts of the trajectories of ``seeds``; draws only, runs no network."""
        if self.source is None:
            if self.terminal is None:
                raise SpecError("generation: neither a terminal nor images to start from")
            rng = [stream(seed, "generation/start") for seed in seeds]
            x_T, omega = self.terminal.draw(self.D, rng, symmetry_noise=self.symmetry_noise)
            return Start(x_T, omega)
        first = seeds[0]
        batch = self.source.images(first, max(seeds) + 1)
        x0 = normalise(torch.from_numpy(np.array(batch[[seed - first for seed in seeds]])))
        # Drawn as in an evaluation with seed 0, so that its metrics apply to these images.
        rng = streams(0, "evaluation/omega", seeds)
        omega = self.D.draw(len(seeds), rng=rng, images=self.images)
        noise = None
        if self.symmetry_noise:
            own = [stream(seed, "generation/symmetry") for seed in seeds]
            noise = break_symmetry(torch.zeros_like(x0), self.symmetry_noise, own)
        return Start(x0, omega, noise)

    def make(self, start: Start, progress: bool | ProgressCallback = False) -> NDArray[np.uint8]:
        """uint8 [B, C, H, W]: x_0 clamped to [-1, 1] and rounded; ``progress`` as of ``sample``.

        Raises ColddiffError if R returns NaN or inf.
        """
        x = start.x.to(self.device)
        if self.source is not None:
            T = falling(self.severities, self.D.num_timesteps, self.sampler)[0]
            x = self.D.observe(x, torch.full((len(x),), T), start.omega)
            x = x if start.noise is None else x + start.noise.to(x.device)
        x_0 = sample(
            self._restore,
            self.D,
            x,
            start.omega,
            sampler=self.sampler,
            severities=self.severities,
            progress=progress,
        )
        if not bool(torch.isfinite(x_0).all()):
            raise ColddiffError("the restorer returned NaN or inf; use another checkpoint")
        return eight_bit(x_0)

    def _restore(self, x_t: Image, t: Severity) -> Image:
        with at_precision(self.precision, x_t.device):
            return self.R(x_t, t).float()
