"""Checks that an image can be halved as often as a U-Net does."""

from __future__ import annotations

from colddiff.errors import SpecError
from colddiff.types import ImageShape


def check_halvings(shape: ImageShape, halvings: int, field: str) -> None:
    """SpecError naming ``field`` unless ``shape`` can be halved so often, to at least 2 px."""
    short = min(shape.height, shape.width)
    if shape.height % 2**halvings or shape.width % 2**halvings:
        problem = f"so both sides must be divisible by {2**halvings}"
    elif short >> halvings < 2:
        problem = f"which leaves {short >> halvings} px of {short}; at least 2 are needed"
    else:
        return
    raise SpecError(
        [
            (
                field,
                f"{halvings + 1} resolutions halve a {shape.height}x{shape.width} px image "
                f"{halvings} times, {problem}; use fewer resolutions or another image_size",
            )
        ]
    )
