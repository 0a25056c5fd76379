"""The contract of a restorer R(x_t, t) ~ x0."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Annotated, Any, final

import torch
from pydantic import SerializeAsAny
from torch import Tensor, nn

from colddiff.spec import KindOf, Registry, Spec, refuse_fields_without_hook
from colddiff.types import Image, ImageShape, Severity


class RestorerSpec(Spec):
    """A kind of restorer."""

    kind: str

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:
        refuse_fields_without_hook(cls, RestorerSpec, {"dropout": "random_in_training"})

    @abstractmethod
    def build(self, shape: ImageShape) -> Restorer:
        """Build the network, freshly initialised, for images of ``shape``."""

    @property
    def random_in_training(self) -> bool:
        """Whether it draws from torch's global generator in training mode: ``dropout``.

        Training then seeds that generator at each step, so that a resumed run draws the same.
        """
        return False


RESTORERS: Registry[RestorerSpec] = Registry("restorer", "colddiff.restorers")
AnyRestorer = Annotated[RestorerSpec, SerializeAsAny(), KindOf(RESTORERS, default="convnext_unet")]


class Restorer(nn.Module, ABC):
    """A network R(x_t, t) that estimates x0; t is int64 [B] in 1..T, images [B, C, H, W].

    Parameter names and shapes match the paper's code, so that its state dicts load.
    """

    @abstractmethod
    def forward(self, x_t: Image, t: Severity) -> Image:
        """The estimate x0_hat, of the shape of ``x_t``; not clipped to [-1, 1]."""

    @property
    @final
    def num_parameters(self) -> int:
        """Number of trainable scalars."""
        return sum(parameter.numel() for parameter in self.parameters())


class Block(nn.Module):
    """Part of a restorer; row i of its output depends only on row i of each input."""


def sinusoid(t: Severity, width: int) -> Tensor:
    """Sinusoidal embedding float32 [B, width] of severities 1..T: sines, then cosines.

    The paper's code passes the index i = t - 1 to its networks; this is the only place that shifts.
    """
    half = width // 2
    scale = -torch.log(torch.tensor(10000.0)) / (half - 1)
    frequencies = torch.exp(torch.arange(half, device=t.device, dtype=torch.float32) * scale)
    angles = (t - 1).to(torch.float32)[:, None] * frequencies[None, :]
    return torch.cat([angles.sin(), angles.cos()], dim=-1)


def build_restorer(
    spec: RestorerSpec | Mapping[str, Any], shape: ImageShape | tuple[int, int, int]
) -> Restorer:
    """Build a restorer R from a spec or its dict form, for images of ``shape``, (C, H, W).

    >>> shape = ImageShape(channels=1, height=16, width=16)
    >>> R = build_restorer({"kind": "convnext_unet", "dim": 8, "dim_mults": [1, 2]}, shape)
    >>> x_t, t = torch.zeros(2, 1, 16, 16), torch.tensor([3, 7])
    >>> R(x_t, t).shape
    torch.Size([2, 1, 16, 16])

    Raises SpecError for an unknown kind, an invalid field, or a shape that the network cannot take.
    """
    return RESTORERS.parse(spec).build(ImageShape.of(shape))
