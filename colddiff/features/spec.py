"""Networks whose features a Frechet distance compares: which one, and where its weights are."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, SerializeAsAny

from colddiff.spec import KindOf, Registry, Spec, Unit

WEIGHTS_PATH = (
    "file of weights, a path or s3://bucket/key; null takes it from COLDDIFF_FEATURES, a folder or "
    "URI (default: features in COLDDIFF_HOME)"
)


class FeaturesSpec(Spec):
    """What every network of features has: its kind."""

    kind: str


FEATURES: Registry[FeaturesSpec] = Registry("features", by_name=True)


@FEATURES.register
class LenetFeaturesSpec(FeaturesSpec):
    """``fd_lenet``: a classifier of digits whose weights ship with the package."""

    kind: Literal["lenet"] = "lenet"


@FEATURES.register
class InceptionFeaturesSpec(FeaturesSpec):
    """``fid``: Inception-v3 by clean-fid's protocol; the weights are not shipped."""

    kind: Literal["inception"] = "inception"
    path: Annotated[str | None, Field(description=WEIGHTS_PATH)] = None


@FEATURES.register
class Resnet20FeaturesSpec(FeaturesSpec):
    """``fd_resnet20``: a classifier of CIFAR-10 (akamaster); the weights are not shipped."""

    kind: Literal["resnet20"] = "resnet20"
    path: Annotated[str | None, Field(description=WEIGHTS_PATH)] = None


@FEATURES.register
class TorchscriptFeaturesSpec(FeaturesSpec):
    """``fd_<name>``: any TorchScript network from float32 images [B, C, H, W] to [B, F]."""

    kind: Literal["torchscript"] = "torchscript"
    path: Annotated[str, Field(description="the network's file, a path or s3://bucket/key")]
    sha256: Annotated[
        str, Field(pattern="^[0-9a-f]{64}$", description="of that file; nothing else is loaded")
    ]
    name: Annotated[str, Field(pattern="^[a-z0-9][a-z0-9_]*$", description="fd_<name>")]
    image_size: Annotated[
        int | None,
        Field(ge=1, le=1024, description="side it takes, null for any"),
        Unit("px"),
    ] = None
    channels: Literal[1, 3] = 3
    range: Annotated[
        tuple[float, float], Field(description="what it takes for the 8-bit values 0 and 255")
    ] = (0.0, 1.0)


AnyFeatures = Annotated[FeaturesSpec, SerializeAsAny(), KindOf(FEATURES)]
"""A spec, its dict form, or a kind's name where the rest has defaults."""
