"""Features for ``fd_<name>``: a user's TorchScript network, pinned by its hash."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F  # noqa: N812  # torch's own name for it

from colddiff.features.spec import TorchscriptFeaturesSpec
from colddiff.features.weights import checked_images, checked_weights, feature_rows, loading


class TorchscriptFeatures:
    """The ``FeatureExtractor`` of ``spec``; ``data`` is the content of its file.

    Raises CheckpointError if the file has another hash or is not TorchScript.
    """

    def __init__(
        self, spec: TorchscriptFeaturesSpec, data: bytes, device: torch.device | str = "cpu"
    ) -> None:
        self.metric = f"fd_{spec.name}"
        self.weights_sha256 = spec.sha256
        self.device = torch.device(device)
        self._spec = spec
        checked_weights(self.metric, spec.path, data, spec.sha256)
        with loading(self.metric, spec.path):
            load: Any = torch.jit.load
            self._network = load(io.BytesIO(data), map_location=self.device).eval()

    @property
    def protocol(self) -> str:
        """Preprocessing and network, in one line."""
        size = self._spec.image_size
        resized = f"antialiased bicubic to {size} px" if size else "at its own size"
        colour = "mean of channels" if self._spec.channels == 1 else "grey repeated to 3 channels"
        low, high = self._spec.range
        return f"0..255 to {low:g}..{high:g}, {colour}, {resized}, TorchScript {self._spec.name}"

    def features(self, images: Tensor) -> NDArray[np.float64]:
        """float64 [B, F] of uint8 ``images`` [B, C, H, W], C = 1 or 3."""
        x = checked_images(self.metric, images).to(self.device).to(torch.float32)
        x = x.mean(dim=1, keepdim=True) if self._spec.channels == 1 else x.expand(-1, 3, -1, -1)
        low, high = self._spec.range
        x = x * ((high - low) / 255) + low
        size = self._spec.image_size
        if size and x.shape[-2:] != (size, size):
            x = F.interpolate(
                x, (size, size), mode="bicubic", align_corners=False, antialias=True
            ).clamp(min(low, high), max(low, high))
        return feature_rows(self.metric, self._network, x.contiguous()).numpy()
