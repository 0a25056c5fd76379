"""Test images as the paper's code makes them, byte for byte."""

from __future__ import annotations

import pytest
import torch

from colddiff.transforms import Augment, Transform
from colddiff.types import ImageShape
from tests.golden.conftest import Golden


@pytest.mark.parametrize(
    ("given", "made", "augment"),
    [
        ("mnist28_in", "mnist28_test_u8", "paper/crop112"),
        ("mnist28_in", "mnist28_test_u8", "paper/centre112"),
        ("cifar32_in", "cifar32_test_u8", "paper/crop112"),
        ("celeba128_in", "celeba128_test_u8", "paper/crop112"),
        ("mnist28_in", "mnist28_defading_u8", "paper/resize"),
    ],
)
def test_the_test_transform(golden: Golden, given: str, made: str, augment: Augment) -> None:
    vectors = golden("preprocess_test_transform")
    image, expected = torch.from_numpy(vectors[given]), torch.from_numpy(vectors[made])
    image = image[None] if image.ndim == 2 else image.permute(2, 0, 1)
    channels, height, width = image.shape
    shape = ImageShape(channels, *expected.shape[1:])
    transform = Transform(augment, (channels, height, width), shape)
    assert torch.equal(transform.test(image[None])[0], expected)
