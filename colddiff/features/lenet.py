"""Features for ``fd_lenet``: a small digit classifier whose weights ship with the package."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import safetensors.torch
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812  # torch's own name for it

from colddiff.errors import CheckpointError, DataError
from colddiff.features.weights import checked_weights

WEIGHTS = Path(__file__).with_name("lenet_digits.safetensors")
WEIGHTS_SHA256 = "11bfa211d26bd54612af42cb940ed130614f7177196e198ddbb8e0e702951b9f"
"""Hash of the shipped file, as printed by ``infra/local/train_lenet.py``."""

IMAGE_SIZE = 16
NUM_FEATURES = 64


class LeNet(nn.Module):
    """Two convolutions and two linear layers (LeCun et al. 1998) on grey 16 px images."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 16, 5, padding=2)
        self.conv2 = nn.Conv2d(16, 32, 3, padding=1)
        self.hidden = nn.Linear(32 * (IMAGE_SIZE // 4) ** 2, NUM_FEATURES)
        self.logits = nn.Linear(NUM_FEATURES, 10)

    def features(self, images: Tensor) -> Tensor:
        """Penultimate layer after its ReLU: [B, 64] of ``images`` [B, 1, 16, 16] in [-1, 1]."""
        x = F.max_pool2d(torch.relu(self.conv1(images)), 2)
        x = F.max_pool2d(torch.relu(self.conv2(x)), 2)
        return torch.relu(self.hidden(x.flatten(1)))

    def forward(self, images: Tensor) -> Tensor:
        """Class scores [B, 10] of ``images`` [B, 1, 16, 16] in [-1, 1]."""
        scores: Tensor = self.logits(self.features(images))
        return scores


class LenetFeatures:
    """The ``FeatureExtractor`` of ``fd_lenet``.

    Args:
        weights: a safetensors file of ``LeNet`` weights; default: the shipped one.
        sha256: the hash the file must have, so that equal metric names mean comparable numbers.
        device: where the network runs.

    Raises:
        CheckpointError: the file is missing or has another hash.
    """

    metric = "fd_lenet"

    def __init__(
        self,
        weights: Path = WEIGHTS,
        sha256: str = WEIGHTS_SHA256,
        device: torch.device | str = "cpu",
    ) -> None:
        self.weights_sha256 = sha256
        self.device = torch.device(device)
        self._network = LeNet().to(self.device).eval()
        self._network.load_state_dict(safetensors.torch.load(_checked(weights, sha256)))

    @property
    def protocol(self) -> str:
        """Preprocessing, network and layer, in one line."""
        return (
            f"uint8 / 127.5 - 1, mean of channels, antialiased bilinear to {IMAGE_SIZE} px, "
            f"LeNet on digits, {NUM_FEATURES} penultimate ReLU features"
        )

    def features(self, images: Tensor) -> NDArray[np.float64]:
        """float64 [B, 64] of uint8 ``images`` [B, C, H, W], C = 1 or 3, of any size."""
        with torch.inference_mode():
            found = self._network.features(preprocess(images.to(self.device)))
        return found.cpu().numpy().astype(np.float64)


def preprocess(images: Tensor) -> Tensor:
    """Network input from images: uint8 [B, C, H, W] -> float32 [B, 1, 16, 16] in [-1, 1]."""
    if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[1] not in (1, 3):
        raise DataError(
            "fd_lenet: expected uint8 images [B, C, H, W] with 1 or 3 channels, got "
            f"{images.dtype} {list(images.shape)}"
        )
    grey = (images.to(torch.float32) / 127.5 - 1).mean(dim=1, keepdim=True)
    if grey.shape[-2:] == (IMAGE_SIZE, IMAGE_SIZE):
        return grey
    return F.interpolate(
        grey, (IMAGE_SIZE, IMAGE_SIZE), mode="bilinear", align_corners=False, antialias=True
    )


def _checked(weights: Path, sha256: str) -> bytes:
    if not weights.is_file():
        raise CheckpointError(f"fd_lenet: no weights at {weights}; reinstall the package")
    data = weights.read_bytes()
    return checked_weights("fd_lenet", str(weights), data, sha256, "reinstall the package")
