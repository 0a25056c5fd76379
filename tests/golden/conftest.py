"""The golden vectors: arrays recorded from the paper's code, kept outside the repository."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

Golden = Callable[[str], Mapping[str, NDArray[Any]]]


@pytest.fixture(scope="session")
def golden() -> Golden:
    """``golden(name)``: the arrays of ``name``.npz; skips where the vectors are not there."""
    default = Path(__file__).resolve().parents[3] / "shared"
    folder = Path(os.environ.get("COLDDIFF_SHARED", default)) / "golden"

    def load(name: str) -> Mapping[str, NDArray[Any]]:
        path = folder / f"{name}.npz"
        if not path.exists():
            pytest.skip(f"no golden vectors at {path}; COLDDIFF_SHARED names their folder")
        with np.load(path, allow_pickle=False) as vectors:
            return dict(vectors)

    return load
