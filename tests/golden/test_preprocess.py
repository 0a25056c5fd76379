"""How the paper's code prepares its test images, and how `data pack` does."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from colddiff.shards.images import fitted
from tests.golden.conftest import Golden

Pixels = NDArray[Any]


def channels_last(pixels: Pixels) -> Pixels:
    return pixels if pixels.ndim == 3 else pixels[:, :, None]


def test_mnist_for_inpainting_is_resized_as_we_do(golden: Golden) -> None:
    vectors = golden("preprocess_test_transform")
    ours = fitted(channels_last(vectors["mnist28_in"]), 32)
    assert np.array_equal(ours[:, :, 0], vectors["mnist28_defading_u8"][0])


@pytest.mark.parametrize(("name", "size"), [("mnist28", 32), ("cifar32", 32), ("celeba128", 128)])
def test_other_test_images_are_enlarged_by_the_code_and_not_by_us(
    golden: Golden, name: str, size: int
) -> None:
    """The code resizes to int(1.12 size) and keeps the centre (PAPER 2.2); we keep the image.

    With those two steps ours is the code's image, bit for bit.
    """
    vectors = golden("preprocess_test_transform")
    image, theirs = channels_last(vectors[f"{name}_in"]), vectors[f"{name}_test_u8"]
    large = int(1.12 * size)
    left = round((large - size) / 2)
    enlarged = fitted(image, large)[left : left + size, left : left + size]
    assert np.array_equal(enlarged.transpose(2, 0, 1), theirs)

    ours = fitted(image, size)
    assert ours.shape == (size, size, image.shape[2])
    if image.shape[0] == size:
        assert np.array_equal(ours, image)
    assert (ours.transpose(2, 0, 1) != theirs).mean() > 0.9
