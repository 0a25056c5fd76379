"""Settings of a restoration: severity, sampler, whether to degrade first, batch size."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, get_args

from colddiff.degradations import Degradation
from colddiff.errors import SpecError
from colddiff.restoration.omega_files import omega_example
from colddiff.restorers.precision import Precision
from colddiff.samplers import DEFAULT, SAMPLERS
from colddiff.sampling import falling
from colddiff.spec.documents import shown

SHOWN = 8
"""Number of severities for ``--severity all``."""
MOST_ROWS, PIXELS = 8, 2**12
MOST_BATCH = 65536
PRECISIONS = get_args(get_args(Precision)[0])


@dataclass(frozen=True, slots=True)
class RestoreSettings:
    """How to restore each image; ``check`` raises SpecError if D does not support it.

    ``severity``: of the input images (with ``degrade``, the severity to degrade to): 1..T, None
    for the first of ``severities`` or T, ``all`` for a strip over eight severities.
    ``severities``: number of even steps down to 0, or a falling list down to 0, of which those
    below the image's severity are used; None: every severity. ``batch_size``: rows of every forward
    pass; None: chosen by the size of the images alone. ``precision``: of R's arithmetic, fp32 or
    bf16. ``strip``: a picture beside each result, of what was given, restored and the original.
    """

    severity: int | Literal["all"] | None = None
    sampler: str = DEFAULT
    severities: int | tuple[int, ...] | None = None
    degrade: bool = False
    seed: int = 0
    batch_size: int | None = None
    fit: bool = False
    any_size: bool = False
    precision: str = "fp32"
    overwrite: bool = False
    strip: bool = False

    def check(self, D: Degradation[Any]) -> None:
        """Raises SpecError naming the invalid option and how to fix it."""
        T = D.num_timesteps
        if self.sampler not in list(SAMPLERS):
            raise SpecError(f"--sampler: {SAMPLERS.unknown(self.sampler)}")
        if isinstance(self.severity, int) and not 1 <= self.severity <= T:
            raise SpecError(
                f"--severity: must be 1..{T} (T of the checkpoint) or all, got {self.severity}"
            )
        if self.strip and self.severity == "all":
            raise SpecError("--strip: the results of --severity all are strips; leave it out")
        if isinstance(self.severities, int) and self.severities < 1:
            raise SpecError(f"--severities: must be at least 1 step, got {self.severities}")
        if isinstance(self.severities, tuple):
            _check_list(self.severities, T)
        if self.batch_size is not None and not 1 <= self.batch_size <= MOST_BATCH:
            raise SpecError(f"--batch-size: must be 1..{MOST_BATCH}, got {self.batch_size}")
        if self.precision not in PRECISIONS:
            raise SpecError(f"--precision: must be fp32 or bf16, got {shown(self.precision)}")
        if not 0 <= self.seed < 2**63:
            raise SpecError("--seed: must be from 0 to 2^63 - 1")
        if (problem := SAMPLERS[self.sampler].unfit(D)) is not None:
            raise SpecError(f"--sampler {self.sampler}: {problem}")

    def starts(self, num_timesteps: int) -> list[int]:
        """The severities to restore from: one, or those of a strip in increasing order."""
        if self.severity != "all":
            return [self._first(num_timesteps) if self.severity is None else self.severity]
        count = min(SHOWN, num_timesteps)
        return [round(num_timesteps * (i + 1) / count) for i in range(count)]

    def steps(self, start: int) -> list[int]:
        """The decreasing severities from ``start`` to 0."""
        if isinstance(self.severities, tuple):
            below = [severity for severity in self.severities if severity < start]
            return falling([start, *below], start, self.sampler)
        wanted = None if self.severities is None else min(self.severities, start)
        return falling(wanted, start, self.sampler)

    def _first(self, num_timesteps: int) -> int:
        return self.severities[0] if isinstance(self.severities, tuple) else num_timesteps

    def guesses_severity(self, D: Degradation[Any]) -> bool:
        """Whether given images are taken for fully degraded because nobody said how much."""
        said = self.severity is not None or isinstance(self.severities, tuple)
        return not (said or self.degrade) and D.num_timesteps > 1

    def rows(self, height: int, width: int) -> int:
        """Rows of every forward pass for images of this size.

        Independent of the number of images: the last bits of an estimate depend on the rows.
        """
        if self.batch_size is not None:
            return self.batch_size
        return max(1, min(MOST_ROWS, PIXELS // (height * width)))

    def needs_omega(self, D: Degradation[Any]) -> bool:
        """Whether omega, what is random in D, is needed."""
        return bool(D.omega_names) and (self.degrade or SAMPLERS[self.sampler].needs_omega)

    def refuse_unknown_omega(self, D: Degradation[Any]) -> None:
        """Raises SpecError if omega is needed for already degraded images, where it is unknown."""
        if self.degrade or not self.needs_omega(D):
            return
        names, kind = ", ".join(D.omega_names), D.spec.kind
        free = [
            sampler.name
            for sampler in SAMPLERS.values()
            if not sampler.needs_omega and sampler.unfit(D) is None
        ]
        raise SpecError(
            f"what is random in {kind} (omega: {names}) cannot be inferred from an image, and "
            f"--sampler {self.sampler} needs it: provide it with --omega FILE, JSON such as "
            f"{omega_example(D)}, or use --sampler "
            f"{' or '.join(free)}, which does not need it (or degrade clean images "
            "with --degrade)"
        )


def _check_list(severities: tuple[int, ...], num_timesteps: int) -> None:
    try:
        falling(severities, num_timesteps)
    except SpecError:
        text = ",".join(map(str, severities))
        raise SpecError(
            f"--severities: a list must fall strictly from at most {num_timesteps} (T of the "
            f"checkpoint) down to 0, got {text}"
        ) from None
