"""Opens feature networks for Frechet distances."""

from __future__ import annotations

from typing import TYPE_CHECKING

from colddiff.errors import CheckpointError
from colddiff.features.published import default_place, no_weights
from colddiff.ports import FeatureExtractor
from colddiff.stores.open import absolute, object_at

if TYPE_CHECKING:
    import torch

    from colddiff.features.spec import FeaturesSpec


def open_features(
    features: FeaturesSpec | str, device: torch.device | str = "cpu"
) -> FeatureExtractor:
    """Load a feature network on ``device``, verifying its weights by hash.

    Raises SpecError for an unknown kind, CheckpointError (which says where to download the
    weights) if they are missing or have another hash, StoreError if they cannot be reached.
    """
    from colddiff.features.networks import open_network
    from colddiff.features.spec import FEATURES

    spec = FEATURES.parse(features)

    def read(place: str) -> bytes:
        store, name = object_at(place)
        return store.get(name)

    return open_network(located_features(spec), read, device)


def missing_weights(
    features: FeaturesSpec, *, paths: bool = True, contact: bool = True
) -> CheckpointError | None:
    """The error of a network whose weights are not there; None where they are, or ship with us.

    Looks, reads nothing. ``paths``: look at paths of this machine; ``contact``: look in S3.
    """
    place = getattr(located_features(features), "path", None)
    if place is None or not (contact if "://" in place else paths):
        return None
    store, name = object_at(place)
    if store.size(name) is not None:
        return None
    return no_weights(features.kind, place)


def located_features(spec: FeaturesSpec) -> FeaturesSpec:
    """``spec`` with the absolute path of its weights, unless they ship with the package."""
    if "path" not in type(spec).model_fields:
        return spec
    path = getattr(spec, "path", None) or default_place(spec.kind)
    return spec.model_copy(update={"path": absolute(path)})
