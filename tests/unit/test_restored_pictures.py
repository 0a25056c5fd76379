"""``colddiff.restore`` of files and PIL images: the pixels that `colddiff restore` reads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image as Pictures

import colddiff
from colddiff.checkpoints.references import load_checkpoint
from colddiff.errors import DataError, SpecError
from tests.restoring import picture
from tests.tiny_checkpoint import tiny_checkpoint


def test_files_and_pil_images_are_restored_as_the_command_reads_them(tmp_path: Path) -> None:
    size = (16, 16, 3)
    levels = np.stack([picture(tmp_path / f"{n}.png", n, size) for n in range(2)])
    checkpoint = load_checkpoint(tiny_checkpoint(tmp_path / "checkpoint", channels=3))
    expected = colddiff.restore(checkpoint, levels.transpose(0, 3, 1, 2), severity=3)
    paths = [tmp_path / "0.png", str(tmp_path / "1.png")]
    opened = Pictures.open(tmp_path / "1.png")
    images: Any
    for images in (paths, tuple(paths), [paths[0], opened], [opened.convert("RGBA")], opened):
        found = colddiff.restore(checkpoint, images, severity=3)
        assert torch.equal(found, expected[-len(found) :])
    turned = Pictures.open(tmp_path / "1.png").transpose(Pictures.Transpose.ROTATE_90)
    turned.getexif()[0x0112] = 6
    assert torch.equal(colddiff.restore(checkpoint, turned, severity=3)[0], expected[1])
    for mode in ("1", "L", "LA", "P", "CMYK"):
        colours = np.asarray(opened.convert(mode).convert("RGB")).transpose(2, 0, 1)[None]
        found = colddiff.restore(checkpoint, opened.convert(mode), severity=3)
        assert torch.equal(found, colddiff.restore(checkpoint, colours, severity=3)), mode
    wide = Pictures.fromarray(picture(tmp_path / "wide.jpg", 3, (20, 40, 3)))
    for image in (str(tmp_path / "wide.jpg"), wide):
        with pytest.raises(DataError, match=r"is 20x40 px.* 16x16; fit=True crops.*any_size=True"):
            colddiff.restore(checkpoint, image)
        assert colddiff.restore(checkpoint, image, fit=True).shape == (1, 3, 16, 16)
        assert colddiff.restore(checkpoint, image, any_size=True).shape == (1, 3, 20, 40)
    with pytest.raises(SpecError, match="of several sizes, 20x40 and 16x16 px"):
        colddiff.restore(checkpoint, [wide, opened], any_size=True)
    with pytest.raises(DataError, match=r"none\.png: cannot be read \(No such file"):
        colddiff.restore(checkpoint, tmp_path / "none.png")
    with pytest.raises(DataError, match=r"^images\[0\]: more than 8 bits per channel"):
        colddiff.restore(checkpoint, opened.convert("F"))
    grey = load_checkpoint(tiny_checkpoint(tmp_path / "grey"))
    with pytest.raises(DataError, match=r"^images\[0\]: a colour image, but the checkpoint takes"):
        colddiff.restore(grey, opened)
