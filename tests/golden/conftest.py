"""The golden vectors: arrays recorded from the paper's code, kept outside the repository."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

Vectors = Mapping[str, NDArray[Any]]
Golden = Callable[[str], Vectors]

READ: dict[str, set[tuple[str, str]]] = {}
"""(file, array) pairs that each test has read so far, by ``module::test``."""


class Recorded(Mapping[str, NDArray[Any]]):
    """The arrays of one file, which notes down which of them are looked at."""

    def __init__(self, file: str, arrays: Vectors, read: set[tuple[str, str]]) -> None:
        self._file, self._arrays, self._read = file, arrays, read

    def __getitem__(self, name: str) -> NDArray[Any]:
        array = self._arrays[name]
        self._read.add((self._file, name))
        return array

    def __iter__(self) -> Iterator[str]:
        return iter(self._arrays)

    def __len__(self) -> int:
        return len(self._arrays)

    def __contains__(self, name: object) -> bool:
        return name in self._arrays  # Mapping's own would read the array


@pytest.fixture(scope="session")
def golden_folder(shared: Path) -> Path:
    """The folder of the vectors; skips where it is not there."""
    folder = shared / "golden"
    if not folder.is_dir():
        pytest.skip(f"no golden vectors at {folder}; COLDDIFF_SHARED names their parent folder")
    return folder


@pytest.fixture
def golden(golden_folder: Path, request: pytest.FixtureRequest) -> Golden:
    """``golden(name)``: the arrays of ``name``.npz; skips where the vectors are not there."""
    function = request.function
    module = function.__module__.rpartition(".")[2]
    read = READ.setdefault(f"{module}::{function.__name__}", set())

    def load(name: str) -> Vectors:
        path = golden_folder / f"{name}.npz"
        if not path.exists():
            pytest.skip(f"no golden vectors at {path}; COLDDIFF_SHARED names their parent folder")
        return Recorded(name, _arrays(path), read)

    return load


@cache
def _arrays(path: Path) -> Vectors:
    with np.load(path, allow_pickle=False) as vectors:
        return dict(vectors)
