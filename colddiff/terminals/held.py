"""Whether D(x, T) still shows the image, so that samples drawn from a terminal will be poor."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from colddiff.data.open import open_transformed, read_manifest
from colddiff.errors import ColddiffError
from colddiff.evaluation.generated import FIELD
from colddiff.rng import streams
from colddiff.terminal import TerminalSpec, terminal_spec
from colddiff.terminals.information import held_information
from colddiff.transforms import normalise

if TYPE_CHECKING:
    from colddiff.verbs.train.job import TrainJob

MOST_HELD = 0.1
"""Part of the variance that may be left. The recipes that generate leave 0 to 0.01, those that
only restore and have a terminal 0.3 to 0.9."""
MOST_IMAGES, FEWEST_IMAGES = 128, 32
MOST_VALUES = 2**23
"""Of all images together: seconds for D and the regression at most."""
MOST_BYTES = 64 * 2**20
"""Size of the one shard that is read: a line of advice is not worth a longer wait."""


def poor_samples(trained: TrainJob, terminal: TerminalSpec | None) -> str:
    """Why samples of ``trained`` that start from ``terminal`` will be poor; empty where they won't.

    They are where x_T is drawn without most of what D(x, T) shows of an image: measured on some
    training images. Empty as well where those cannot be read, at little cost, and without a
    terminal. Never raises a ColddiffError: nobody's job fails for advice.
    """
    try:
        held = _held(trained, terminal)
    except (ColddiffError, RuntimeError):  # torch's errors of a regression are RuntimeErrors
        return ""
    if held is None or held <= MOST_HELD:
        return ""
    return (
        f"samples will be poor: D(x, T) of this {trained.degradation.kind} still shows the image "
        f"(a linear restorer recovers {held:.0%} of what x_T is drawn without)"
    )


def poor_evaluation(job: TrainJob) -> list[str]:
    """A line, which begins with FIELD, where a training's evaluations will make poor samples."""
    if job.evaluation.generated is None or job.test_data is None:
        return []
    try:
        terminal = terminal_spec(job.degradation.build(job.shape), job.terminal)
    except ColddiffError:
        return []
    why = poor_samples(job, terminal)
    way = "leave it null, or train with a larger T or a stronger degradation"
    return [f"{FIELD}: {why}; {way}"] if why else []


def _held(trained: TrainJob, terminal: TerminalSpec | None) -> float | None:
    """The part of the variance that D(x, T) holds; None if finding out costs too much."""
    D = trained.degradation.build(trained.shape)
    # A second set would have to be read as well, and at T leaves nothing of the first.
    if terminal is None or trained.data is None or D.omega_images:
        return None
    channels, height, width = trained.shape.chw
    shard = read_manifest(trained.data).shards[0]
    n = min(MOST_IMAGES, shard.count, MOST_VALUES // (channels * height * width))
    if n < FEWEST_IMAGES or shard.bytes > MOST_BYTES:
        return None
    # Streamed: of a set that is decoded whole, all shards would be read.
    source = open_transformed(trained.data, trained.augment, trained.shape, max_decoded_bytes=0)
    rows = np.linspace(0, shard.count - 1, n).round().astype(int)
    stored = np.concatenate([source.images(int(row), int(row) + 1) for row in rows])
    omega = D.draw(n, rng=streams(0, "generate/held", range(n)))
    with torch.no_grad():
        x0 = normalise(torch.from_numpy(stored))
        return held_information(D, terminal, x0, omega)
