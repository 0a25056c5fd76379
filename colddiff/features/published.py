"""Feature networks whose weights are published elsewhere and not shipped; known without torch."""

from __future__ import annotations

import os
from dataclasses import dataclass

from colddiff.errors import CheckpointError


@dataclass(frozen=True, slots=True)
class PublishedWeights:
    """A file of weights: its name, the hash it must have, where it is, and its size in bytes."""

    file: str
    sha256: str
    folder: str
    size: int

    @property
    def download(self) -> str:
        """Where to get it, for a message."""
        return f"{self.folder}/{self.file} ({self.size:,} bytes)"


INCEPTION = PublishedWeights(
    "inception-2015-12-05.pt",
    "f58cb9b6ec323ed63459aa4fb441fe750cfe39fafad6da5cb504a16f19e958f4",
    "https://nvlabs-fi-cdn.nvidia.com/stylegan2-ada-pytorch/pretrained/metrics",
    95_607_719,
)
RESNET20 = PublishedWeights(
    "resnet20-12fca82f.th",
    "12fca82f0bebc4135bf1f32f6e3710e61d5108578464b84fd6d7f5c1b04036c8",
    "https://github.com/akamaster/pytorch_resnet_cifar10/raw/master/pretrained_models",
    1_099_231,
)
PUBLISHED = {"inception": INCEPTION, "resnet20": RESNET20}
"""By the kind of features."""


def default_place(kind: str) -> str:
    """Default path of the published weights of ``kind``: in COLDDIFF_FEATURES or COLDDIFF_HOME."""
    home = os.environ.get("COLDDIFF_HOME") or "~/.colddiff"
    folder = os.environ.get("COLDDIFF_FEATURES") or f"{home}/features"
    return f"{folder.rstrip('/')}/{PUBLISHED[kind].file}"


def no_weights(kind: str, place: str) -> CheckpointError:
    """The error of a network of ``kind`` without a file at ``place``, with where to get one."""
    way = "put the file there, or set evaluation.features.path to one all workers can read"
    if kind in PUBLISHED:
        weights = PUBLISHED[kind]
        way = (
            f"download {weights.download} to that path, or to one that all workers can read: "
            f"evaluation.features={{kind: {kind}, path: s3://bucket/{weights.file}}}, in "
            "`submit evaluate` features={...}"
        )
    return CheckpointError(f"evaluation.features: no weights at {place}; {way}")
