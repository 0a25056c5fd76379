"""Types that every layer shares: images, severities, omega, the shape of an image."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from colddiff.errors import SpecError

if TYPE_CHECKING:
    from torch import Tensor

Image: TypeAlias = "Tensor"
"""Float tensor [B, C, H, W], values in [-1, 1] (nothing clips estimates to that range)."""

Severity: TypeAlias = "Tensor"
"""int64 tensor [B], one severity per image in 0..T; 0 is the clean image."""

Omega: TypeAlias = "Mapping[str, Tensor]"
"""What is random in D on one trajectory, leading dimension B; empty where D is not random."""

ProgressCallback: TypeAlias = Callable[[int, int], None]
"""Called with (done, total) as work advances."""


@dataclass(frozen=True, slots=True)
class ImageShape:
    """Channels, height and width of one image, in pixels.

    >>> shape = ImageShape(channels=3, height=32, width=48)
    >>> str(shape), shape.chw
    ('3x32x48', (3, 32, 48))

    Raises SpecError unless all three are positive integers:

    >>> ImageShape(channels=3, height=0, width=32)
    Traceback (most recent call last):
    colddiff.errors.SpecError: image shape: height must be a positive integer, got 0
    """

    channels: int
    height: int
    width: int

    def __post_init__(self) -> None:
        for name in ("channels", "height", "width"):
            value = getattr(self, name)
            if not isinstance(value, int) or value < 1:
                raise SpecError(f"image shape: {name} must be a positive integer, got {value!r}")

    @classmethod
    def of(cls, shape: object) -> ImageShape:
        """``shape`` itself, or of a sequence (C, H, W); SpecError for anything else.

        >>> ImageShape.of((3, 32, 48)) == ImageShape(3, 32, 48)
        True
        """
        if isinstance(shape, cls):
            return shape
        if isinstance(shape, tuple | list) and len(shape) == 3:
            return cls(*shape)
        raise SpecError(f"image shape: must be ImageShape(channels, height, width), got {shape!r}")

    @property
    def chw(self) -> tuple[int, int, int]:
        """(C, H, W)."""
        return (self.channels, self.height, self.width)

    def __str__(self) -> str:
        return f"{self.channels}x{self.height}x{self.width}"
