"""How images are restored: from which severity, by which sampler, as given or degraded first."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from colddiff.degradations import Degradation
from colddiff.errors import SpecError
from colddiff.samplers import DEFAULT, SAMPLERS
from colddiff.sampling import falling

SHOWN = 8
"""Severities tried where ``all`` are asked for."""
MOST_ROWS, PIXELS = 8, 2**12


@dataclass(frozen=True, slots=True)
class RestoreSettings:
    """What is done to each image; SpecError from ``check`` where D cannot mean it.

    ``severity``: of the images as they are (or, with ``degrade``, as they are to become): 1..T,
    None for T, ``all`` for a strip over eight of them. ``severities``: number of even steps down
    to 0; None takes every severity. ``batch_size``: rows of every forward pass; None for a number
    that depends on the images' size alone.
    """

    severity: int | Literal["all"] | None = None
    sampler: str = DEFAULT
    severities: int | None = None
    degrade: bool = False
    seed: int = 0
    batch_size: int | None = None
    fit: bool = False
    any_size: bool = False
    overwrite: bool = False

    def check(self, D: Degradation[Any]) -> None:
        """Raises SpecError naming the option that cannot be meant, and the way out."""
        T = D.num_timesteps
        if self.sampler not in SAMPLERS:
            raise SpecError(f"--sampler: {SAMPLERS.unknown(self.sampler)}")
        if isinstance(self.severity, int) and not 1 <= self.severity <= T:
            raise SpecError(
                f"--severity: must be 1..{T} (T of the checkpoint) or all, got {self.severity}"
            )
        if self.severities is not None and self.severities < 1:
            raise SpecError(f"--severities: must be at least 1 step, got {self.severities}")
        if self.batch_size is not None and self.batch_size < 1:
            raise SpecError(f"--batch-size: must be at least 1, got {self.batch_size}")
        if (problem := SAMPLERS[self.sampler].unfit(D)) is not None:
            raise SpecError(f"--sampler {self.sampler}: {problem}")

    def starts(self, num_timesteps: int) -> list[int]:
        """The severities that images are restored from: one, or those of a strip, rising."""
        if self.severity != "all":
            return [num_timesteps if self.severity is None else self.severity]
        count = min(SHOWN, num_timesteps)
        return [round(num_timesteps * (i + 1) / count) for i in range(count)]

    def steps(self, start: int) -> list[int]:
        """The falling severities from ``start`` to 0."""
        wanted = None if self.severities is None else min(self.severities, start)
        return falling(wanted, start, self.sampler)

    def rows(self, height: int, width: int) -> int:
        """Rows of every forward pass for images of this size.

        Never the number of images at hand: the last bits of an estimate depend on it.
        """
        if self.batch_size is not None:
            return self.batch_size
        return max(1, min(MOST_ROWS, PIXELS // (height * width)))

    def needs_omega(self, D: Degradation[Any]) -> bool:
        """Whether somebody must say what is random in D."""
        return bool(D.omega_names) and (self.degrade or SAMPLERS[self.sampler].needs_omega)

    def refuse_unknown_omega(self, D: Degradation[Any]) -> None:
        """Raises SpecError for images given as they are whose omega nobody can know."""
        if self.degrade or not self.needs_omega(D):
            return
        names, kind = ", ".join(D.omega_names), D.spec.kind
        free = [
            sampler.name
            for sampler in SAMPLERS.values()
            if not sampler.needs_omega and sampler.unfit(D) is None
        ]
        raise SpecError(
            f"what is random in {kind} (omega: {names}) cannot be known from an image, and "
            f"--sampler {self.sampler} needs it: give it with --omega FILE, or take --sampler "
            f"{' or '.join(free)}, which needs none (or let clean images be degraded with "
            "--degrade)"
        )
