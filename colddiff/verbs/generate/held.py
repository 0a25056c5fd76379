"""Whether D(x, T) still shows the image, so that samples drawn from a terminal will be poor."""

from __future__ import annotations

import numpy as np
import torch

from colddiff.checkpoints.references import describe_checkpoint, find_checkpoint
from colddiff.data.open import open_transformed, read_manifest
from colddiff.errors import ColddiffError
from colddiff.rng import streams
from colddiff.terminal import TERMINALS
from colddiff.terminals.information import held_information
from colddiff.transforms import normalise
from colddiff.verbs.generate.job import GenerateJob

MOST_HELD = 0.1
"""Part of the variance that may be left. The recipes that generate leave 0 to 0.01, those that
only restore and have a terminal 0.3 to 0.9."""
MOST_IMAGES, FEWEST_IMAGES = 128, 32
MOST_VALUES = 2**23
"""Of all images together: seconds for D and the regression at most."""
MOST_BYTES = 64 * 2**20
"""Size of the one shard that is read: a line of advice is not worth a longer wait."""


def held_lines(job: GenerateJob) -> list[str]:
    """A line where x_T of ``job`` is drawn without most of what D(x, T) shows of an image.

    Measured on some training images of the checkpoint; none where they cannot be read, at little
    cost. Never raises a ColddiffError: nobody's job fails for advice.
    """
    if job.data is not None or job.checkpoint is None:
        return []
    try:
        held = _held(job, job.checkpoint)
    except (ColddiffError, RuntimeError):  # torch's errors of a regression are RuntimeErrors
        return []
    if held is None or held[1] <= MOST_HELD:
        return []
    kind, part = held
    return [
        f"samples will be poor: D(x, T) of this {kind} still shows the image (a linear restorer "
        f"recovers {part:.0%} of what x_T is drawn without); restore the images of a set with "
        "data=URI, or train with a larger T or a stronger degradation, until D(x, T) is a mere "
        "colour or noise, as in the recipes named *generation*"
    ]


def _held(job: GenerateJob, checkpoint: str) -> tuple[str, float] | None:
    """Kind of D, and the part of the variance that D(x, T) holds; None if that costs too much."""
    about = describe_checkpoint(find_checkpoint(checkpoint))
    trained, terminal = about.job, job.terminal
    if terminal is None and about.terminal is not None:
        terminal = TERMINALS.parse(about.terminal)
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
        return D.spec.kind, held_information(D, terminal, x0, omega)
