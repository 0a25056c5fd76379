"""Trains the LeNet in ``colddiff/features/lenet_digits.safetensors`` on scikit-learn's digits.

    python infra/local/train_lenet.py [--out FILE]

Prints held-out accuracy and the file's sha256, to be copied into ``colddiff/features/lenet.py``.
Runs on the same machine write the same bytes; another CPU may round differently, which is why the
file is shipped and its hash is checked.
"""

from __future__ import annotations

import argparse
import hashlib
import math
from pathlib import Path

import numpy as np
import safetensors.torch
import torch
from sklearn.datasets import load_digits
from torch import Tensor
from torch.nn import functional as F  # noqa: N812  # torch's own name for it

from colddiff.features.lenet import WEIGHTS, WEIGHTS_SHA256, LeNet, preprocess

SEED = 20220819
NUM_TRAIN = 1497
EPOCHS = 120
BATCH = 50


def digits() -> tuple[Tensor, Tensor]:
    """Network inputs of all 1797 images, float32 [N, 1, 16, 16], and their labels."""
    data = load_digits()
    eight_bit = np.rint(data.images * (255 / 16)).astype(np.uint8)
    return preprocess(torch.from_numpy(eight_bit)[:, None]), torch.from_numpy(data.target)


def varied(images: Tensor, rng: np.random.Generator) -> Tensor:
    """Augmented images: rotated by up to 15 degrees, sheared, scaled, shifted, darkened.

    Scales 0.6..1.1, aspect ratios up to 1.28, shifts up to 1.5 px and up to 3 times darker ink, so
    that digits with a margin and saturated strokes, such as MNIST's, are covered too.
    """
    batch = len(images)
    angle = rng.uniform(-math.pi / 12, math.pi / 12, batch)
    scale_y = 1 / rng.uniform(0.6, 1.1, batch)
    scale_x = scale_y * np.exp(rng.uniform(-0.25, 0.25, batch))
    shear = rng.uniform(-0.3, 0.3, batch)
    shift = rng.uniform(-1.5, 1.5, (2, batch)) * (2 / images.shape[-1])
    across = [scale_x * np.cos(angle), shear - scale_x * np.sin(angle), shift[0]]
    down = [scale_y * np.sin(angle), scale_y * np.cos(angle), shift[1]]
    theta = np.stack([np.stack(across, axis=1), np.stack(down, axis=1)], axis=1)
    grid = F.affine_grid(
        torch.from_numpy(theta).to(images.dtype), list(images.shape), align_corners=False
    )
    # Outside the image is background, -1, whereas grid_sample pads with 0.
    moved = F.grid_sample(images + 1, grid, align_corners=False)
    ink = torch.from_numpy(rng.uniform(1, 3, (batch, 1, 1, 1))).to(images.dtype)
    return (1 + (moved - 1) * ink).clamp(0, 2) - 1


def trained(images: Tensor, labels: Tensor) -> LeNet:
    """Train the network: ``EPOCHS`` epochs of Adam with a cosine learning rate."""
    torch.manual_seed(SEED)
    rng = np.random.default_rng(SEED)
    network = LeNet().train()
    optimizer = torch.optim.Adam(network.parameters(), lr=2e-3)
    steps = EPOCHS * (len(images) // BATCH)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(EPOCHS):
        order = torch.from_numpy(rng.permutation(len(images)))
        for chosen in order.split(BATCH)[: len(images) // BATCH]:
            loss = F.cross_entropy(network(varied(images[chosen], rng)), labels[chosen])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return network.eval()


def main() -> None:
    """Train the network, print its accuracy and write its weights."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--out", metavar="FILE", type=Path, default=WEIGHTS, help="default: the shipped weights"
    )
    out: Path = parser.parse_args().out
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    images, labels = digits()
    network = trained(images[:NUM_TRAIN], labels[:NUM_TRAIN])
    with torch.inference_mode():
        right = network(images).argmax(dim=1) == labels
    held_out = right[NUM_TRAIN:].double().mean().item()
    data = safetensors.torch.save(dict(network.state_dict()))
    out.write_bytes(data)
    sha256 = hashlib.sha256(data).hexdigest()
    print(f"accuracy: {right[:NUM_TRAIN].double().mean().item():.4f} on training digits")
    print(f"accuracy: {held_out:.4f} on {len(images) - NUM_TRAIN} held-out digits")
    print(f"{out}: {len(data)} bytes, sha256 {sha256}")
    if sha256 != WEIGHTS_SHA256:
        print("not the recorded hash: put this one into colddiff/features/lenet.py")


if __name__ == "__main__":
    main()
