"""Trains a digit classifier on MNIST at 32 px: features for Frechet distances at that size.

    python infra/local/train_mnist_features.py MNIST_DIR --out mnist32.pt

``fd_lenet`` compares digits at 16 px; these features see all 32. Prints held-out accuracy and the
sha256, to be written into ``features: {kind: torchscript, path: ..., sha256: ..., name: mnist32,
image_size: 32, channels: 1, range: [-1, 1]}``. Runs on the same machine give the same network.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812  # torch's own name for it

SEED = 20220819
EPOCHS = 2
BATCH = 100
SIDE = 32
NUM_FEATURES = 64


class DigitFeatures(nn.Module):
    """Three strided convolutions and a hidden layer, whose output is the features."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 16, 5, stride=2, padding=2)
        self.conv2 = nn.Conv2d(16, 32, 3, stride=2, padding=1)
        self.conv3 = nn.Conv2d(32, 64, 3, stride=2, padding=1)
        self.hidden = nn.Linear(64 * 16, NUM_FEATURES)

    def forward(self, images: Tensor) -> Tensor:
        """Features [B, 64] of ``images`` [B, 1, 32, 32] in [-1, 1], after the ReLU."""
        x = torch.relu(self.conv1(images))
        x = torch.relu(self.conv2(x))
        x = torch.relu(self.conv3(x))
        return torch.relu(self.hidden(x.flatten(1)))


def split(folder: Path, name: str) -> tuple[Tensor, Tensor]:
    """Images [N, 1, 32, 32] in [-1, 1] and labels of a split, from ``folder`` or below it."""
    images = _idx(folder, f"{name}-images-idx3-ubyte", 16).reshape(-1, 1, 28, 28)
    pixels = torch.from_numpy(images.astype(np.float32)) / 127.5 - 1
    resized = F.interpolate(pixels, (SIDE, SIDE), mode="bilinear", antialias=True)
    return resized, torch.from_numpy(_idx(folder, f"{name}-labels-idx1-ubyte", 8).astype(np.int64))


def _idx(folder: Path, name: str, header: int) -> np.ndarray:
    path = next(path for path in sorted(folder.rglob(f"{name}*")) if path.is_file())
    data = path.read_bytes()
    raw = gzip.decompress(data) if path.suffix == ".gz" else data
    return np.frombuffer(raw, np.uint8, offset=header)


def trained(images: Tensor, labels: Tensor) -> tuple[DigitFeatures, nn.Linear]:
    """The network and the classifier on its features, after ``EPOCHS`` epochs of Adam."""
    torch.manual_seed(SEED)
    network, classifier = DigitFeatures(), nn.Linear(NUM_FEATURES, 10)
    parameters = [*network.parameters(), *classifier.parameters()]
    optimizer = torch.optim.Adam(parameters, lr=1e-3)
    for _ in range(EPOCHS):
        for chosen in torch.randperm(len(images)).split(BATCH):
            loss = F.cross_entropy(classifier(network(images[chosen])), labels[chosen])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return network.eval(), classifier.eval()


def main() -> None:
    """Train the network, print its accuracy and write it as TorchScript."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path, help="MNIST's idx files, or a folder above them")
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    network, classifier = trained(*split(arguments.folder, "train"))
    images, labels = split(arguments.folder, "t10k")
    with torch.inference_mode():
        right = classifier(network(images)).argmax(dim=1) == labels
    torch.jit.script(network).save(str(arguments.out))
    sha256 = hashlib.sha256(arguments.out.read_bytes()).hexdigest()
    print(f"accuracy: {right.double().mean().item():.4f} on {len(labels):,} held-out digits")
    print(f"{arguments.out}: sha256 {sha256}")


if __name__ == "__main__":
    main()
