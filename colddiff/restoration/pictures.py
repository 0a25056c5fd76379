"""Image files and PIL images that ``colddiff.restore`` is given, as the array it restores."""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeAlias

import torch

from colddiff.data.left_out import ALPHA, FRAMES, LeftOut
from colddiff.data.pil_images import Decoded, PilImage, opened_image
from colddiff.errors import DataError, SpecError
from colddiff.machine.files import is_folder
from colddiff.restoration.files import Picture as PictureFile
from colddiff.restoration.files import conformed, read_picture
from colddiff.spec.documents import shown
from colddiff.stores.paths import expanded
from colddiff.transforms import normalise
from colddiff.types import Image, ImageShape

Picture: TypeAlias = "str | os.PathLike[str] | PilImage"


def pictures_in(images: Any) -> list[Picture] | None:
    """Paths and PIL images, of one or of a list of them; None for anything else, such as an array.

    Raises SpecError for a list of which only some are.
    """
    if isinstance(images, str | os.PathLike | PilImage):
        return [images]
    if not isinstance(images, list | tuple):
        return None
    are = [isinstance(image, str | os.PathLike | PilImage) for image in images]
    if not any(are):
        return None
    if not all(are):
        n = are.index(False)
        raise SpecError(
            f"images[{n}]: must be a path or a PIL image, as others of the list are, got "
            f"{shown(images[n])}"
        )
    return list(images)


def as_array(pictures: Sequence[Picture], shape: ImageShape, *, fit: bool, any_size: bool) -> Image:
    """The pictures as `colddiff restore` reads such files, float32 [B, C, H, W] in [-1, 1].

    Raises DataError naming the first that cannot be read, or that a checkpoint trained on images of
    ``shape`` does not take; SpecError for pictures of several sizes. Warns of what is not in the
    pixels: alpha that is not opaque, further frames of a file.
    """
    found: list[Image] = []
    left_out = LeftOut()
    for n, picture in enumerate(pictures):
        where = f"images[{n}]" if isinstance(picture, PilImage) else os.fspath(picture)
        try:
            read = _read(picture, where)
            pixels = conformed(read.pixels, shape, where, fit=fit, any_size=any_size and not fit)
        except DataError as error:
            text = str(error).replace("--fit", "fit=True").replace("--any-size", "any_size=True")
            raise DataError(text) from None
        for lost, why in ((read.transparent, ALPHA), (read.multiframe, FRAMES)):
            if lost:
                left_out.add(why, where)
        found.append(normalise(torch.from_numpy(pixels.transpose(2, 0, 1).copy())))
        if found[n].shape != found[0].shape:
            sizes = " and ".join(f"{x.shape[1]}x{x.shape[2]}" for x in (found[0], found[n]))
            raise SpecError(
                f"images: are of several sizes, {sizes} px; restore them one by one, or with "
                "fit=True"
            )
    if left_out:
        warnings.warn(f"left out: {left_out}", stacklevel=4)  # at the caller of colddiff.restore
    return torch.stack(found)


def _read(picture: Picture, where: str) -> Decoded | PictureFile:
    if isinstance(picture, PilImage):
        return opened_image(picture, where)
    path = expanded(os.fspath(picture))
    if is_folder(path):
        raise SpecError(
            f"images: {where} is a folder; give a list of files, such as "
            f"sorted(Path({str(Path(where))!r}).glob('*.jpg'))"
        )
    return read_picture(path)
