"""Features for ``fd_resnet20``: a CIFAR-10 classifier (He et al. 2016, akamaster's weights)."""

from __future__ import annotations

import io

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812  # torch's own name for it

from colddiff.features.published import RESNET20
from colddiff.features.weights import checked_images, checked_weights, feature_rows, loading

SIDE = 32
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class _Block(nn.Module):
    """Two 3x3 convolutions; if the width grows, the shortcut is strided and zero-padded."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.stride = 1 if inputs == outputs else 2
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride=self.stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        out = self.bn2(self.conv2(torch.relu(self.bn1(self.conv1(x)))))
        if self.stride == 2:
            added = out.shape[1] - x.shape[1]
            x = F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, added // 2, added - added // 2))
        return torch.relu(out + x)


class Resnet20(nn.Module):
    """Three stages of three blocks on normalised colour images of 32 px; 64 pooled features."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.layer1 = nn.Sequential(_Block(16, 16), _Block(16, 16), _Block(16, 16))
        self.layer2 = nn.Sequential(_Block(16, 32), _Block(32, 32), _Block(32, 32))
        self.layer3 = nn.Sequential(_Block(32, 64), _Block(64, 64), _Block(64, 64))
        self.linear = nn.Linear(64, 10)

    def features(self, x: Tensor) -> Tensor:
        """[B, 64] of ``x`` [B, 3, 32, 32], scaled to [0, 1] and normalised."""
        x = torch.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        return x.mean(dim=(2, 3))

    def forward(self, x: Tensor) -> Tensor:
        """Class scores [B, 10]."""
        scores: Tensor = self.linear(self.features(x))
        return scores


class Resnet20Features:
    """The ``FeatureExtractor`` of ``fd_resnet20``; ``data`` is the content of the weights file.

    Raises CheckpointError for any other file.
    """

    metric = "fd_resnet20"

    def __init__(self, data: bytes, place: str, device: torch.device | str = "cpu") -> None:
        self.weights_sha256 = RESNET20.sha256
        self.device = torch.device(device)
        checked_weights(self.metric, place, data, RESNET20.sha256)
        self.network = Resnet20()
        with loading(self.metric, place):
            saved = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
            weights = {
                name.removeprefix("module."): value for name, value in saved["state_dict"].items()
            }
            self.network.load_state_dict(weights)
        self.network.to(self.device).eval()

    @property
    def protocol(self) -> str:
        """Preprocessing, network and layer, in one line."""
        return (
            f"uint8 / 255, grey repeated to 3 channels, antialiased bilinear to {SIDE} px, "
            "normalised, ResNet-20 on CIFAR-10, 64 pooled features"
        )

    def features(self, images: Tensor) -> NDArray[np.float64]:
        """float64 [B, 64] of uint8 ``images`` [B, C, H, W], C = 1 or 3, of any size."""
        x = self.preprocess(checked_images(self.metric, images).to(self.device))
        return feature_rows(self.metric, self.network.features, x).numpy()

    @staticmethod
    def preprocess(images: Tensor) -> Tensor:
        """Network input from images: uint8 [B, C, H, W] -> float32 [B, 3, 32, 32]."""
        x = images.to(torch.float32).expand(-1, 3, -1, -1) / 255
        if x.shape[-2:] != (SIDE, SIDE):
            x = F.interpolate(x, (SIDE, SIDE), mode="bilinear", align_corners=False, antialias=True)
        mean, std = (torch.tensor(v, device=x.device).view(3, 1, 1) for v in (MEAN, STD))
        return (x - mean) / std
