"""Images whose values have no natural black and white, among others."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from colddiff.errors import DataError, SpecError
from tests.stacks import SHALLOW, packed, refused


def test_values_without_a_range_are_named_among_the_bad_and_may_be_skipped(tmp_path: Path) -> None:
    for n in range(6):
        Image.fromarray(SHALLOW[0]).save(tmp_path / f"{n}.png")
    np.save(tmp_path / "x.npy", SHALLOW[:3] / 255)
    Image.fromarray(SHALLOW[0] / np.float32(255)).save(tmp_path / "y.tif")
    why = "values; --range says which are black and white"
    found = packed(tmp_path, skip_broken=True)[0].manifest
    assert found.count == 6
    assert sorted(found.settings["skipped"]) == [
        ["x.npy", f"x.npy: holds float64 {why}"],
        ["y.tif", f"y.tif: holds float32 {why}"],
    ]
    (tmp_path / "z.png").write_bytes(b"")
    with pytest.raises(DataError, match="3 images cannot be packed") as caught:
        packed(tmp_path)
    assert {line.split("/")[-1].split(":")[0] for line in caught.value.details} == {
        "x.npy",
        "y.tif",
        "z.png",
    }
    for kept in tmp_path.glob("*.png"):
        kept.unlink()
    for skip in (False, True):
        assert "range: is needed for" in refused(tmp_path, SpecError, skip_broken=skip)
