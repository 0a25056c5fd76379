"""`colddiff restore` run in this process, and images to run it on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from tests.in_process import Done, colddiff_here
from tests.tiny_checkpoint import tiny_checkpoint


class Restore:
    """Runs the command into ``out``, with a checkpoint of an untrained network."""

    def __init__(
        self, folder: Path, patch: pytest.MonkeyPatch, captured: pytest.CaptureFixture[str]
    ) -> None:
        self._patch, self._captured, self._folder = patch, captured, folder
        self.out = folder / "out"
        self.checkpoint = tiny_checkpoint(folder / "grey")

    def use(self, **fields: Any) -> None:
        """Another checkpoint."""
        self.checkpoint = tiny_checkpoint(self._folder / "other", **fields)

    def __call__(self, *words: str | Path) -> Done:
        arguments = ("--checkpoint", self.checkpoint, "--out", self.out, *words)
        return colddiff_here(self._patch, self._captured, "restore", *arguments)


def picture(
    path: Path, seed: int, size: tuple[int, ...] = (16, 16), dtype: type[np.generic] = np.uint8
) -> NDArray[Any]:
    """A smooth random image, written to ``path``."""
    coarse = np.random.default_rng(seed).integers(0, 256, (4, 4, *size[2:])).astype(np.uint8)
    pixels = np.asarray(Image.fromarray(coarse).resize((size[1], size[0]), 2)).astype(dtype)
    if dtype is np.uint16:
        pixels = pixels * 257
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return np.asarray(pixels)


def pixels_of(path: Path) -> NDArray[Any]:
    return np.asarray(Image.open(path))


def error_of(done: Done) -> str:
    assert (done.returncode, done.stdout) == (2, ""), done.stderr
    return done.stderr.splitlines()[-1]
