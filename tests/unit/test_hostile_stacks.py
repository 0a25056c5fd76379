"""Files of many images with bytes changed: read, or named in one line, whatever a reader says."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import tifffile

from colddiff.data.sources.image_folder import FolderSource
from colddiff.data.stacks.frames import Levels
from colddiff.errors import DataError, SpecError
from colddiff.stores.local_store import LocalStore
from tests.stacks import DEEP, SHALLOW, dicom

MADE: dict[str, Callable[[Path], Any]] = {
    "a.npy": lambda path: np.save(path, DEEP),
    "b.npz": lambda path: np.savez(path, x=SHALLOW),
    "c.dcm": lambda path: dicom(path, DEEP[0], RescaleSlope=2, RescaleIntercept=-5),
    "d.nii": lambda path: nibabel.save(nibabel.Nifti1Image(DEEP.T.copy(), np.eye(4)), path),
    "e.nii.gz": lambda path: nibabel.save(nibabel.Nifti1Image(DEEP.T.copy(), np.eye(4)), path),
    "f.tif": lambda path: tifffile.imwrite(path, DEEP, photometric="minisblack"),
}
ROUNDS = 150


def refusal(folder: Path) -> str | None:
    """What is said of the files in a folder; None if they are read."""
    source = FolderSource(LocalStore(folder), Levels(16, (0.0, 900.0)))
    try:
        for entry in source.entries(None)[:5]:
            assert source.load(entry).dtype in (np.uint8, np.uint16)
    except (DataError, SpecError) as error:
        return str(error)
    return None


@pytest.mark.parametrize("name", MADE)
def test_a_file_that_is_almost_right_is_read_or_named(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], name: str
) -> None:
    path, rng = tmp_path / name, random.Random(name)
    MADE[name](path)
    whole, said = path.read_bytes(), []
    for _ in range(ROUNDS):
        data = bytearray(whole)
        for _ in range(rng.choice([1, 4, 16])):
            data[rng.randrange(min(len(data), 1500))] = rng.randrange(256)
        path.write_bytes(data[: rng.choice([len(data), rng.randrange(len(data))])])
        said.append(refusal(tmp_path))
    refusals = [line for line in said if line is not None]
    assert len(refusals) > 10
    assert all("\n" not in line and name in line for line in refusals)
    # Pillow's library writes to stderr itself, about each TIFF that it finds damaged.
    noise = [line for line in capfd.readouterr().err.splitlines() if "TIFF" not in line]
    assert noise == [] or name == "f.tif"
