"""Builds the feature network that a spec names."""

from __future__ import annotations

import os
from collections.abc import Callable

import torch

from colddiff.errors import CheckpointError, Missing
from colddiff.features import cleanfid_inception as inception
from colddiff.features import resnet20
from colddiff.features.cleanfid_inception import InceptionFeatures
from colddiff.features.lenet import LenetFeatures
from colddiff.features.resnet20 import Resnet20Features
from colddiff.features.spec import (
    FeaturesSpec,
    InceptionFeaturesSpec,
    LenetFeaturesSpec,
    Resnet20FeaturesSpec,
    TorchscriptFeaturesSpec,
)
from colddiff.features.torchscript import TorchscriptFeatures
from colddiff.ports import FeatureExtractor

PUBLISHED = {"inception": inception, "resnet20": resnet20}
"""Networks whose weights are published elsewhere and not shipped, by kind."""


def default_place(kind: str) -> str:
    """Default path of the published weights of ``kind``: in COLDDIFF_FEATURES or COLDDIFF_HOME."""
    home = os.environ.get("COLDDIFF_HOME") or "~/.colddiff"
    folder = os.environ.get("COLDDIFF_FEATURES") or f"{home}/features"
    return f"{folder.rstrip('/')}/{PUBLISHED[kind].FILE}"


def open_network(
    spec: FeaturesSpec, read: Callable[[str], bytes], device: torch.device | str
) -> FeatureExtractor:
    """Build the network of ``spec``, whose path is resolved; ``read`` fetches the file at a path.

    Raises CheckpointError if the weights are missing or have another hash.
    """
    match spec:
        case InceptionFeaturesSpec(path=str(place)):
            return InceptionFeatures(_weights(spec.kind, place, read), place, device=device)
        case Resnet20FeaturesSpec(path=str(place)):
            return Resnet20Features(_weights(spec.kind, place, read), place, device)
        case TorchscriptFeaturesSpec():
            return TorchscriptFeatures(spec, _weights(spec.kind, spec.path, read), device)
        case LenetFeaturesSpec():
            return LenetFeatures(device=device)
    raise AssertionError(f"no network for {spec!r}")


def _weights(kind: str, place: str, read: Callable[[str], bytes]) -> bytes:
    try:
        return read(place)
    except Missing:
        raise no_weights(kind, place) from None


def no_weights(kind: str, place: str) -> CheckpointError:
    """The error of a network of ``kind`` without a file at ``place``, with where to get one."""
    way = "put the file there, or set evaluation.features.path to one all workers can read"
    if kind in PUBLISHED:
        file = PUBLISHED[kind].FILE
        way = (
            f"download {PUBLISHED[kind].DOWNLOAD} to that path, or to one that all workers can "
            f"read: evaluation.features={{kind: {kind}, path: s3://bucket/{file}}}, in "
            "`submit evaluate` features={...}"
        )
    return CheckpointError(f"evaluation.features: no weights at {place}; {way}")
