"""The ConvNeXt U-Net, its fields: `colddiff.restorers.networks.convnext_unet` is the network."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from colddiff.restorers.base import RESTORERS, RestorerSpec
from colddiff.restorers.resolutions import check_halvings
from colddiff.types import ImageShape

if TYPE_CHECKING:
    from colddiff.restorers.networks.convnext_unet import ConvNextUnet


@RESTORERS.register
class ConvNextUnetSpec(RestorerSpec):
    """The paper's network for MNIST, CelebA and AFHQ, and for all snow and colour models."""

    kind: Literal["convnext_unet"] = "convnext_unet"
    dim: Annotated[
        int, Field(ge=4, le=1024, multiple_of=2, description="channels at full resolution")
    ] = 64
    dim_mults: Annotated[
        tuple[Annotated[int, Field(ge=1, le=64)], ...],
        Field(min_length=1, max_length=8, description="channels at each resolution, times `dim`"),
    ] = (1, 2, 4, 8)
    residual: Annotated[bool, Field(description="add the input to the output")] = False
    time_embedding: Annotated[
        bool, Field(description="whether the network receives the severity")
    ] = True

    def check(self, shape: ImageShape) -> None:
        check_halvings(shape, len(self.dim_mults) - 1, "restorer.dim_mults")

    def build(self, shape: ImageShape) -> ConvNextUnet:
        from colddiff.restorers.networks.convnext_unet import ConvNextUnet

        self.check(shape)
        return ConvNextUnet(self, shape.channels)
