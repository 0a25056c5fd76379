"""Counter-based random streams: an image depends on its seed, not on batch, rank or retry."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import numpy.typing as npt

from colddiff.errors import SpecError

if TYPE_CHECKING:
    import torch

Rng: TypeAlias = "np.random.Generator | Sequence[np.random.Generator] | torch.Generator"
"""One generator for a whole batch, or one per image; also a ``torch.Generator``."""


def stream(seed: int, purpose: str, index: int = 0) -> np.random.Generator:
    """The random stream of image ``index`` for one ``purpose``: its own Philox generator.

    Streams of different (seed, purpose, index) do not overlap: seed and purpose form the 128-bit
    key, and the index is the upper half of the 256-bit counter, above 2^128 draws. ``seed`` may be
    any integer (torch's CPU generator would keep only 32 bits of it).
    """
    counter = np.array([0, 0, index & (2**64 - 1), index >> 64], dtype=np.uint64)
    return np.random.Generator(np.random.Philox(key=_key(seed, purpose), counter=counter))


def streams(seed: int, purpose: str, indices: Sequence[int]) -> list[np.random.Generator]:
    """One stream per index: the ``rng`` of a batch of those images."""
    return [stream(seed, purpose, index) for index in indices]


def rows(rng: Rng, batch: int) -> Sequence[np.random.Generator]:
    """``batch`` numpy generators: ``rng`` itself if a sequence, else one shared by all rows.

    From a ``torch.Generator``, two words are drawn to seed a numpy generator for the batch.
    """
    if isinstance(rng, np.random.Generator):
        return [rng] * batch
    if isinstance(rng, Sequence):
        if len(rng) != batch:
            raise SpecError(f"rng: {len(rng)} generators for a batch of {batch}")
        return rng
    import torch

    if not isinstance(rng, torch.Generator):
        raise SpecError(f"rng: expected a generator, or one per image, got {rng!r}")
    words = torch.randint(-(2**62), 2**62, (2,), generator=rng, device=rng.device)
    return [stream(int(words[0]), "torch", int(words[1]) & (2**63 - 1))] * batch


def words(seed: int, purpose: str, start: int, count: int) -> npt.NDArray[np.uint64]:
    """Uniform 64-bit words ``start``..``start + count`` - 1 of one long stream.

    For one draw per position: the word of a position does not depend on the range requested.
    """
    block, offset = divmod(start, 4)  # Philox yields four words per counter value
    philox = np.random.Philox(key=_key(seed, purpose))
    philox.advance(block)
    return np.asarray(philox.random_raw(offset + count)[offset:], dtype=np.uint64)


def _key(seed: int, purpose: str) -> npt.NDArray[np.uint64]:
    name = hashlib.blake2b(f"{seed}/{purpose}".encode(), digest_size=16).digest()
    return np.frombuffer(name, dtype=np.uint64)
