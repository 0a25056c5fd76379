"""Features for ``fid``: Inception-v3 with clean-fid's protocol (Parmar et al. 2022)."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from colddiff.features.published import INCEPTION
from colddiff.features.weights import checked_images, checked_weights, feature_rows, loading

SIDE = 299
CHUNK = 32


class InceptionFeatures:
    """The ``FeatureExtractor`` of ``fid``: 2048 pooled features.

    Args:
        data: content of the weights file, read from ``place``; it is never downloaded here.
        sha256: the hash it must have.
        device: where the network runs.

    Raises CheckpointError for any other file.
    """

    metric = "fid"

    def __init__(
        self,
        data: bytes,
        place: str,
        *,
        sha256: str = INCEPTION.sha256,
        device: torch.device | str = "cpu",
    ) -> None:
        from cleanfid.inception_torchscript import InceptionV3W
        from cleanfid.resize import build_resizer

        self.weights_sha256 = sha256
        self.device = torch.device(device)
        self._resize = build_resizer("clean")
        checked_weights(self.metric, place, data, sha256)
        with loading(self.metric, place), tempfile.TemporaryDirectory() as folder:
            # clean-fid loads a file of this name from a folder; give it the verified bytes.
            (Path(folder) / INCEPTION.file).write_bytes(data)
            self._network = InceptionV3W(folder, download=False).to(self.device).eval()

    @property
    def protocol(self) -> str:
        """Preprocessing, network and layer, in one line."""
        return (
            f"grey repeated to 3 channels, clean-fid resizing to {SIDE} px (PIL bicubic on floats, "
            "per channel), (x - 128) / 128, Inception-v3 of 2015-12-05, 2048 pooled features"
        )

    def features(self, images: Tensor) -> NDArray[np.float64]:
        """float64 [B, 2048] of uint8 ``images`` [B, C, H, W], C = 1 or 3, of any size."""
        checked_images(self.metric, images)
        found = [self._of(images[at : at + CHUNK]) for at in range(0, len(images), CHUNK)]
        return np.concatenate(found)

    def _of(self, images: Tensor) -> NDArray[np.float64]:
        colour = images.expand(-1, 3, -1, -1).permute(0, 2, 3, 1).cpu().numpy()
        resized = np.stack([self._resize(image) for image in colour])
        batch = torch.from_numpy(resized).permute(0, 3, 1, 2).contiguous().to(self.device)
        return feature_rows(self.metric, self._network, batch).numpy()
