"""Builds the feature network that a spec names."""

from __future__ import annotations

from collections.abc import Callable

import torch

from colddiff.errors import Missing
from colddiff.features.cleanfid_inception import InceptionFeatures
from colddiff.features.lenet import LenetFeatures
from colddiff.features.published import no_weights
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
