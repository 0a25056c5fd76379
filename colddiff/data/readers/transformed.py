"""A packed set as a restorer is to see it: test images of the job's shape."""

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

VIEW = "view"
"""Setting of a manifest that names the preset its images are test images of."""


class ViewedShards:
    """``ShardSource`` of the test images that ``transform`` makes of another's stored ones.

    The manifest's digest stays that of the stored set; its image format is that of the view, which
    its settings name.
    """

    def __init__(self, source: ShardSource, transform: Transform, shape: ImageShape) -> None:
        self._source = source
        self._transform = transform
        stored = source.manifest
        self.manifest: Manifest = replace(
            stored,
            image=replace(stored.image, height=shape.height, width=shape.width),
            settings={**stored.settings, VIEW: transform.augment},
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
            yield Batch(self._viewed(batch.images), batch.positions)

    def images(self, start: int, stop: int) -> NDArray[Any]:
        return self._viewed(self._source.images(start, stop))

    def _viewed(self, images: NDArray[Any]) -> NDArray[Any]:
        made: NDArray[Any] = self._transform.test(torch.from_numpy(images)).numpy()
        return made


def transform_of(source: ShardSource, augment: Augment, shape: ImageShape, name: str) -> Transform:
    """The preset for the images of ``source``; DataError starts with ``name``."""
    image = source.manifest.image
    try:
        return Transform(augment, (image.channels, image.height, image.width), shape)
    except DataError as error:
        raise DataError(f"{name}: {error}") from None


def viewed(source: ShardSource, augment: Augment, shape: ImageShape, name: str) -> ShardSource:
    """``source`` with the test images of ``augment``: itself where they are the stored ones.

    Raises DataError, starting with ``name``, where its images cannot become those of ``shape``.
    """
    transform = transform_of(source, augment, shape, name)
    return ViewedShards(source, transform, shape) if transform.changes_test_images else source
