"""Unconditional samples of a restorer against test images: the Frechet distance of the two sets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from colddiff.degradations import Degradation
from colddiff.errors import SpecError
from colddiff.evaluation.metrics import FeatureStatistics, frechet_distance
from colddiff.evaluation.set_comparison import COLUMN
from colddiff.evaluation.spec import GeneratedSpec
from colddiff.evaluation.sums import merged
from colddiff.image_maker import ImageMaker
from colddiff.ports import FeatureExtractor
from colddiff.samplers import check_samplers
from colddiff.sampling import falling
from colddiff.terminal import TerminalSpec, terminal_spec

FIELD = "evaluation.generated"


@dataclass(frozen=True, slots=True)
class GeneratedSamples:
    """What was found of unconditional samples: metrics by path, provenance, the first images.

    ``provenance`` is JSON-ready; ``images`` uint8 [k, C, H, W].
    """

    metrics: Mapping[str, float]
    provenance: Mapping[str, Any]
    images: NDArray[np.uint8]


def check_generated(
    spec: GeneratedSpec, D: Degradation[Any], terminal: TerminalSpec | None
) -> TerminalSpec:
    """The terminal that samples start from, D's own or ``terminal``.

    Raises SpecError if there is none, or if D does not support the sampler or the severities.
    """
    found = terminal_spec(D, terminal)
    if found is None:
        what = (
            f"{D.spec.kind} has no distribution of x_T to draw samples from; set terminal, or leave"
            " this null"
        )
        raise SpecError([(FIELD, what)])
    check_samplers([spec.sampler], D, f"{FIELD}.sampler")
    try:
        first = falling(spec.severities, D.num_timesteps, spec.sampler)[0]
    except SpecError as error:
        raise SpecError([(f"{FIELD}.{path}", what) for path, what in error.problems]) from None
    if first != D.num_timesteps:
        what = f"must start at T = {D.num_timesteps}, where x_T is drawn, got {first}"
        raise SpecError([(f"{FIELD}.severities", what)])
    return found


def evaluate_generated(
    maker: ImageMaker,
    spec: GeneratedSpec,
    reference: FeatureStatistics,
    extractor: FeatureExtractor,
    *,
    batch_size: int = 64,
    keep: int = 64,
) -> GeneratedSamples:
    """``eval/generated/<fd>``: ``spec.num_images`` samples of ``maker`` against ``reference``.

    Image n is a function of seed ``spec.first_seed`` + n alone, so that two restorers start from
    the same x_T where their terminals are equal. Raises ColddiffError if R returns NaN or inf.
    """
    total: FeatureStatistics | None = None
    kept: list[NDArray[np.uint8]] = []
    seeds = range(spec.first_seed, spec.first_seed + spec.num_images)
    for row in range(0, len(seeds), batch_size):
        images = maker.make(maker.start(seeds[row : row + batch_size]))
        features = extractor.features(torch.from_numpy(np.ascontiguousarray(images)))
        total = merged(total, FeatureStatistics.of(features))
        kept.append(images[: max(0, keep - row)])
    assert total is not None
    return GeneratedSamples(
        {f"{COLUMN}/{extractor.metric}": frechet_distance(total, reference)},
        {
            "n": total.n,
            "n_reference": reference.n,
            "sampler": spec.sampler,
            "severities": falling(spec.severities, maker.D.num_timesteps, spec.sampler),
            "symmetry_noise": spec.symmetry_noise,
            "first_seed": spec.first_seed,
            "terminal": maker.terminal.state() if maker.terminal is not None else None,
        },
        np.concatenate(kept),
    )
