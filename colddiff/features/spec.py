"""Specs of feature networks: which network, and where its weights are stored."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, SerializeAsAny

from colddiff.spec import KindOf, Registry, Spec, Unit

WEIGHTS_PATH = (
    "weights file, a path or s3://bucket/key; null: in COLDDIFF_FEATURES, a folder or URI "
    "(default: COLDDIFF_HOME/features)"
)


class FeaturesSpec(Spec):
    """A kind of feature network."""

    kind: str

    @property
    def metric(self) -> str:
        """Name of the Frechet distance in its features: ``fid``, ``fd_lenet``, ``fd_<name>``."""
        return f"fd_{getattr(self, 'name', self.kind)}"


FEATURES: Registry[FeaturesSpec] = Registry("features", by_name=True)


@FEATURES.register
class LenetFeaturesSpec(FeaturesSpec):
    """``fd_lenet``: a digit classifier whose weights ship with the package."""

    kind: Literal["lenet"] = "lenet"


@FEATURES.register
class InceptionFeaturesSpec(FeaturesSpec):
    """``fid``: Inception-v3 with clean-fid's protocol; the weights are not shipped."""

    kind: Literal["inception"] = "inception"
    path: Annotated[str | None, Field(description=WEIGHTS_PATH)] = None

    @property
    def metric(self) -> str:
        return "fid"


@FEATURES.register
class Resnet20FeaturesSpec(FeaturesSpec):
    """``fd_resnet20``: a CIFAR-10 classifier (akamaster); the weights are not shipped."""

    kind: Literal["resnet20"] = "resnet20"
    path: Annotated[str | None, Field(description=WEIGHTS_PATH)] = None


@FEATURES.register
class TorchscriptFeaturesSpec(FeaturesSpec):
    """``fd_<name>``: any TorchScript network from float32 images [B, C, H, W] to [B, F]."""

    kind: Literal["torchscript"] = "torchscript"
    path: Annotated[str, Field(description="TorchScript file, a path or s3://bucket/key")]
    sha256: Annotated[
        str, Field(pattern="^[0-9a-f]{64}$", description="required hash of that file")
    ]
    name: Annotated[
        str, Field(pattern="^[a-z0-9][a-z0-9_]*$", description="metric name: fd_<name>")
    ]
    image_size: Annotated[
        int | None,
        Field(ge=1, le=1024, description="side of the network's input, null for any"),
        Unit("px"),
    ] = None
    channels: Annotated[Literal[1, 3], Field(description="of the network's input")] = 3
    range: Annotated[
        tuple[float, float], Field(description="network input for the 8-bit values 0 and 255")
    ] = (0.0, 1.0)


def measuring(metric: str) -> str | None:
    """The kind of features that this distance is measured in; None where fields decide it.

    >>> measuring("fid"), measuring("fd_lenet"), measuring("rmse")
    ('inception', 'lenet', None)
    """
    for name, kind in FEATURES.items():
        complete = not any(field.is_required() for field in kind.model_fields.values())
        if complete and FEATURES.parse({"kind": name}).metric == metric:
            return name
    return None


AnyFeatures = Annotated[FeaturesSpec, SerializeAsAny(), KindOf(FEATURES)]
"""A spec, its dict form, or the name of a kind whose other fields have defaults."""
