"""How often an evaluation calls the network."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from colddiff.evaluation.spec import GeneratedSpec
from colddiff.sampling import falling


class Evaluates(Protocol):
    """What an evaluation restores with, as a job of that verb and a training's have it."""

    @property
    def samplers(self) -> Sequence[str]:
        """Names of the samplers."""

    @property
    def severities(self) -> int | Sequence[int] | None:
        """Those that are visited, see ``falling``."""

    @property
    def curve(self) -> Sequence[int] | None:
        """Numbers of calls of the restorations besides."""


def calls_by_sampler(evaluates: Evaluates, num_timesteps: int) -> dict[str, int]:
    """Calls of the network for one image, by sampler, without those of the curve.

    Raises SpecError for severities that do not fall from ``num_timesteps``.
    """
    return {
        name: len(falling(evaluates.severities, num_timesteps, name)) - 1
        for name in evaluates.samplers
    }


def calls_per_image(evaluates: Evaluates, num_timesteps: int) -> int:
    """``calls_by_sampler`` of all, and of the curve."""
    return sum(calls_by_sampler(evaluates, num_timesteps).values()) + sum(evaluates.curve or ())


def calls_of_samples(generated: GeneratedSpec, num_timesteps: int) -> int:
    """Calls of the network for all samples that are made beside an evaluation."""
    return generated.num_images * (
        len(falling(generated.severities, num_timesteps, generated.sampler)) - 1
    )
