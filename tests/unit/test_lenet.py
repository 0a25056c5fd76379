"""The shipped digit features: the right file, right about digits, and ordered by degradation."""

from __future__ import annotations

import hashlib
import importlib.util
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import Tensor

from colddiff.degradations import build_degradation
from colddiff.errors import CheckpointError, DataError
from colddiff.evaluation.metrics import FeatureStatistics, frechet_distance
from colddiff.features.lenet import WEIGHTS, WEIGHTS_SHA256, LeNet, LenetFeatures, preprocess
from colddiff.ports import FeatureExtractor
from colddiff.types import ImageShape

SCRIPT = Path(__file__).resolve().parents[2] / "infra" / "local" / "train_lenet.py"


@cache
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("train_lenet", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@cache
def held_out() -> tuple[Tensor, Tensor]:
    """Digits the network has not seen, float32 [300, 1, 16, 16], and their labels."""
    images, labels = script().digits()
    return images[script().NUM_TRAIN :], labels[script().NUM_TRAIN :]


def eight_bit(images: Tensor) -> Tensor:
    return ((images.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)


def distance(extractor: FeatureExtractor, images: Tensor, reference: Tensor) -> float:
    a, b = (FeatureStatistics.of(extractor.features(eight_bit(x))) for x in (images, reference))
    return frechet_distance(a, b)


def test_it_is_a_feature_extractor() -> None:
    extractor: FeatureExtractor = LenetFeatures()
    assert extractor.metric == "fd_lenet"
    assert extractor.weights_sha256 == hashlib.sha256(WEIGHTS.read_bytes()).hexdigest()
    assert "16 px" in extractor.protocol
    assert WEIGHTS.stat().st_size < 300_000


def test_it_knows_held_out_digits() -> None:
    images, labels = held_out()
    network = LeNet().eval()
    network.load_state_dict(safetensors.torch.load_file(WEIGHTS))
    with torch.inference_mode():
        right = network(images).argmax(dim=1) == labels
    assert right.double().mean() > 0.95


def test_the_distance_grows_with_the_blur() -> None:
    images, _ = held_out()
    D = build_degradation(
        {"kind": "blur", "kernel_size": 5, "sigma": {"kind": "constant", "value": 1.2}},
        ImageShape(1, 16, 16),
    )
    found = [
        distance(LenetFeatures(), D.degrade(images, torch.full((len(images),), t)), images)
        for t in (0, 1, 2, 4, 8, 20)
    ]
    assert found[0] < 1e-6
    assert found == sorted(found)
    assert found[2] > 100 * found[0] + 100


def test_the_distance_grows_with_noise() -> None:
    images, _ = held_out()
    noise = torch.from_numpy(np.random.default_rng(3).standard_normal(images.shape)).float()
    found = [distance(LenetFeatures(), images + s * noise, images) for s in (0.05, 0.2, 0.4, 0.8)]
    assert found == sorted(found)


@pytest.mark.parametrize("shape", [(2, 3, 16, 16), (2, 1, 8, 8), (2, 1, 32, 28)], ids=str)
def test_images_of_any_size_and_colour(shape: tuple[int, ...]) -> None:
    images = torch.randint(0, 256, shape, dtype=torch.uint8)
    found = LenetFeatures().features(images)
    assert found.shape == (2, 64)
    assert found.dtype == np.float64
    assert (found >= 0).all()


def test_grey_is_the_mean_of_the_channels() -> None:
    grey = torch.randint(0, 256, (2, 1, 20, 20), dtype=torch.uint8)
    torch.testing.assert_close(preprocess(grey), preprocess(grey.repeat(1, 3, 1, 1)))
    red = torch.zeros(1, 3, 16, 16, dtype=torch.uint8)
    red[:, 0] = 255
    torch.testing.assert_close(preprocess(red), torch.full((1, 1, 16, 16), -1 / 3))


@pytest.mark.parametrize(
    "images",
    [torch.zeros(1, 1, 16, 16), torch.zeros(1, 2, 16, 16, dtype=torch.uint8)],
    ids=["floating", "two channels"],
)
def test_other_images_are_refused(images: Tensor) -> None:
    with pytest.raises(DataError, match="fd_lenet: expected uint8 images"):
        LenetFeatures().features(images)


def test_other_weights_are_refused(tmp_path: Path) -> None:
    other = tmp_path / "other.safetensors"
    with pytest.raises(CheckpointError, match="no weights at"):
        LenetFeatures(other)
    other.write_bytes(WEIGHTS.read_bytes()[:-1] + b"x")
    with pytest.raises(CheckpointError, match=f"expected {WEIGHTS_SHA256}"):
        LenetFeatures(other)


def test_the_script_repeats_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[bytes] = []
    train: Any = script()
    monkeypatch.setattr(train, "EPOCHS", 1)
    images, labels = train.digits()
    for _ in range(2):
        network = train.trained(images[:200], labels[:200])
        made.append(safetensors.torch.save(dict(network.state_dict())))
    assert made[0] == made[1]
