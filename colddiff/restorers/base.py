"""A kind of restorer R(x_t, t) ~ x0: its fields, and how its network is built.

Jobs and commands read the fields without importing torch; `networks` holds the networks.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import SerializeAsAny

from colddiff.spec import KindOf, Registry, Spec, refuse_fields_without_hook
from colddiff.spec.plugins import name_errors
from colddiff.types import ImageShape

if TYPE_CHECKING:
    from colddiff.restorers.networks.base import Restorer


class RestorerSpec(Spec):
    """A kind of restorer."""

    kind: str

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:
        refuse_fields_without_hook(cls, RestorerSpec, {"dropout": "random_in_training"})
        name_errors(cls, "build")

    @abstractmethod
    def build(self, shape: ImageShape) -> Restorer:
        """Build the network, freshly initialised, for images of ``shape``."""

    def check(self, shape: ImageShape) -> None:
        """Raises SpecError where ``build`` would, for images of ``shape``.

        By default it is built, without weights. A kind that knows without torch says so sooner.
        """
        import torch

        with torch.device("meta"):
            self.build(shape)

    @property
    def random_in_training(self) -> bool:
        """Whether it draws from torch's global generator in training mode: ``dropout``.

        Training then seeds that generator at each step, so that a resumed run draws the same.
        """
        return False


RESTORERS: Registry[RestorerSpec] = Registry("restorer", "colddiff.restorers")
AnyRestorer = Annotated[RestorerSpec, SerializeAsAny(), KindOf(RESTORERS, default="convnext_unet")]


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
