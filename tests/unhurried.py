"""Blur that waits for most of the time: for tests of what goes on around it, not of arithmetic."""

from __future__ import annotations

from pathlib import Path

KIND = "unhurried_blur"
SOURCE = f'''
"""Blur that waits before each call."""

import time
from typing import Literal

from colddiff.degradations import DEGRADATIONS
from colddiff.degradations.blur import Blur, BlurSpec


@DEGRADATIONS.register
class UnhurriedBlurSpec(BlurSpec):
    """Severity t is t chained Gaussian blurs, after a while."""

    kind: Literal["{KIND}"] = "{KIND}"
    pause_s: float = 1.0

    def build(self, shape):
        return UnhurriedBlur(self, shape)


class UnhurriedBlur(Blur):
    def _degrade(self, x0, t, omega):
        time.sleep(self.spec.pause_s)
        return super()._degrade(x0, t, omega)
'''


def write_plugin(folder: Path) -> str:
    """The path of the plugin, in a folder that is there."""
    path = folder / "unhurried.py"
    path.write_text(SOURCE)
    return str(path)
