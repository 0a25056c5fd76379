"""A packed set transformed to the test images of a job: resized and centre-cropped."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch
from numpy.typing import NDArray

from colddiff.errors import DataError
from colddiff.ports import Batch, Manifest, ShardSource
from colddiff.transforms import Augment, Transform
from colddiff.types import ImageShape

TRANSFORM_SETTING = "view"
"""Manifest setting that names the preset applied; recorded in provenance, so it must not change."""


class TransformedShards:
    """``ShardSource`` that applies ``transform`` to the images of another, as test images.

    The manifest keeps the digest of the stored set; its image format is that of the transformed
    images, and its settings name the preset.
    """

    def __init__(self, source: ShardSource, transform: Transform, shape: ImageShape) -> None:
        self._source = source
        self._transform = transform
        stored = source.manifest
        self.manifest: Manifest = replace(
            stored,
            image=replace(stored.image, height=shape.height, width=shape.width),
            settings={**stored.settings, TRANSFORM_SETTING: transform.augment},
        )

    def batches(
        self, *, seed: int, global_batch_size: int, rank: int, world_size: int, start_step: int
    ) -> Iterator[Batch]:
        made = self._source.batches(
            seed=seed,
            global_batch_size=global_batch_size,
            rank=rank,
            world_size=world_size,
            start_step=start_step,
        )
        for batch in made:
            yield Batch(self._apply(batch.images), batch.positions)

    def images(self, start: int, stop: int) -> NDArray[Any]:
        return self._apply(self._source.images(start, stop))

    def _apply(self, images: NDArray[Any]) -> NDArray[Any]:
        made: NDArray[Any] = self._transform.test(torch.from_numpy(images)).numpy()
        return made


def transform_of(source: ShardSource, augment: Augment, shape: ImageShape, name: str) -> Transform:
    """The preset for the images of ``source``; a DataError is prefixed with ``name``."""
    image = source.manifest.image
    try:
        return Transform(augment, (image.channels, image.height, image.width), shape)
    except DataError as error:
        raise DataError(f"{name}: {error}") from None


def transformed(source: ShardSource, augment: Augment, shape: ImageShape, name: str) -> ShardSource:
    """``source`` transformed to the test images of ``augment``; unchanged if they are the same.

    Raises DataError, prefixed with ``name``, if its images cannot be transformed to ``shape``.
    """
    transform = transform_of(source, augment, shape, name)
    return TransformedShards(source, transform, shape) if transform.changes_test_images else source
