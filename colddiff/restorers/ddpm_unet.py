"""The DDPM U-Net, its fields: `colddiff.restorers.networks.ddpm_unet` is the network."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal, Self

from pydantic import Field, model_validator

from colddiff.errors import SpecError
from colddiff.restorers.base import RESTORERS, RestorerSpec
from colddiff.restorers.resolutions import check_halvings
from colddiff.types import ImageShape

if TYPE_CHECKING:
    from colddiff.restorers.networks.ddpm_unet import DdpmUnet

NORM_GROUPS = 32


@RESTORERS.register
class DdpmUnetSpec(RestorerSpec):
    """The paper's network for CIFAR-10 (blur, inpainting, super-resolution)."""

    kind: Literal["ddpm_unet"] = "ddpm_unet"
    ch: Annotated[
        int, Field(ge=32, le=1024, description="channels at full resolution, a multiple of 32")
    ] = 128
    ch_mult: Annotated[
        tuple[Annotated[int, Field(ge=1, le=64)], ...],
        Field(min_length=1, max_length=8, description="channels at each resolution, times `ch`"),
    ] = (1, 2, 2, 2)
    num_res_blocks: Annotated[
        int, Field(ge=1, le=8, description="blocks per resolution on the way down; one more up")
    ] = 2
    attn_resolutions: Annotated[
        tuple[Annotated[int, Field(ge=1)], ...],
        Field(description="resolutions (shorter side, px) with attention after each block"),
    ] = (16,)
    dropout: Annotated[float, Field(ge=0, lt=1, description="dropout rate, in training only")] = 0.1

    @model_validator(mode="after")
    def _check_groups(self) -> Self:
        if self.ch % NORM_GROUPS:
            below = self.ch - self.ch % NORM_GROUPS
            raise SpecError(
                [
                    (
                        "ch",
                        f"must be divisible by the {NORM_GROUPS} groups of the norms, got "
                        f"{self.ch}; use {below} or {below + NORM_GROUPS}",
                    )
                ]
            )
        return self

    def check(self, shape: ImageShape) -> None:
        check_halvings(shape, len(self.ch_mult) - 1, "restorer.ch_mult")
        sides = self._sides(shape)
        for side in self.attn_resolutions:
            if side not in sides:
                raise SpecError(
                    [
                        (
                            "restorer.attn_resolutions",
                            f"no resolution is {side} px; with images of {shape.height}x"
                            f"{shape.width} px they are {', '.join(map(str, sides))}",
                        )
                    ]
                )

    def build(self, shape: ImageShape) -> DdpmUnet:
        from colddiff.restorers.networks.ddpm_unet import DdpmUnet

        self.check(shape)
        attended = [side in self.attn_resolutions for side in self._sides(shape)]
        return DdpmUnet(self, shape.channels, attended)

    def _sides(self, shape: ImageShape) -> list[int]:
        """The shorter side at each resolution, in px."""
        return [min(shape.height, shape.width) >> level for level in range(len(self.ch_mult))]

    @property
    def random_in_training(self) -> bool:
        return self.dropout > 0
