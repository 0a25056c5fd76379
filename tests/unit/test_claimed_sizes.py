"""Files whose headers claim what is not there: named once, and not read for what they claim."""

from __future__ import annotations

import gzip
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from numpy.typing import NDArray

import colddiff
from colddiff.data.stacks import nibabel_volumes, numpy_arrays
from colddiff.errors import DataError
from tests.stacks import SHALLOW, dicom, packed, refused

CUT = "its header says"


def volume(path: Path, values: NDArray[Any]) -> None:
    nibabel.save(nibabel.Nifti1Image(values, np.eye(4)), path)


def counted(monkeypatch: pytest.MonkeyPatch, module: Any) -> list[Path]:
    """The files that ``module`` has read, as it reads them."""
    reads, read = list[Path](), module.read_frames

    def reading(path: Path, where: str) -> Any:
        reads.append(path)
        return read(path, where)

    monkeypatch.setattr(module, "read_frames", reading)
    return reads


def with_dim(path: Path, *dim: int) -> None:
    volume(path, np.zeros((4, 8, 8), np.uint8))
    data = bytearray(path.read_bytes())
    data[40 : 40 + 2 * len(dim)] = struct.pack(f"<{len(dim)}h", *dim)
    path.write_bytes(data)


def claimed_npz(path: Path) -> None:
    header = b"\x93NUMPY\x01\x00v\x00"
    text = b"{'descr': '|u1', 'fortran_order': False, 'shape': (16000, 12, 10), }"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x.npy", header + text.ljust(117) + b"\n" + b"\0" * 500)


@pytest.mark.parametrize(
    ("name", "make", "said"),
    [
        ("a.dcm", lambda path: dicom(path, SHALLOW[0], NumberOfFrames=-5), "damaged: its shape"),
        ("a.nii", lambda path: with_dim(path, 3, 4, 8, -8), "damaged"),
        ("a.dcm", lambda path: dicom(path, SHALLOW[0], NumberOfFrames=100_000), CUT),
        ("a.nii", lambda path: with_dim(path, 3, 4, 8, 30_000), CUT),
        ("a.npz", claimed_npz, CUT),
    ],
)
def test_a_file_that_claims_what_is_not_there_is_named_once(
    tmp_path: Path, name: str, make: Callable[[Path], None], said: str
) -> None:
    np.save(tmp_path / "good.npy", SHALLOW)
    make(tmp_path / name)
    line = refused(tmp_path, image_size=8)
    assert f"/{name}: " in line
    assert said in line
    assert line.count(name) == 1
    result, _ = packed(tmp_path, image_size=8, skip_broken=True)
    assert result.manifest.count == len(SHALLOW)
    assert [skipped for skipped, _ in result.manifest.settings["skipped"]] == [name]


def test_a_truncated_volume_is_unpacked_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(0)
    plain = tmp_path / "v.nii"
    volume(plain, rng.integers(0, 255, (16, 16, 150)).astype(np.uint8))
    whole = gzip.compress(plain.read_bytes())
    plain.unlink()
    (tmp_path / "v.nii.gz").write_bytes(whole[: len(whole) // 2])
    np.save(tmp_path / "good.npy", SHALLOW)
    reads = counted(monkeypatch, nibabel_volumes)
    result, _ = packed(tmp_path, image_size=8, skip_broken=True)
    assert result.manifest.count == len(SHALLOW)
    assert [name for name, _ in result.manifest.settings["skipped"]] == ["v.nii.gz"]
    assert len(reads) == 1
    assert refused(tmp_path, image_size=8).count("v.nii.gz") == 1


def test_a_damaged_archive_is_read_once_and_named_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    np.savez(tmp_path / "x.npz", x=np.zeros((40, 60, 60), np.uint8))
    data = bytearray((tmp_path / "x.npz").read_bytes())
    data[-3000] ^= 255  # within the values: the sum no longer fits
    (tmp_path / "x.npz").write_bytes(data)
    reads = counted(monkeypatch, numpy_arrays)
    assert refused(tmp_path).count("x.npz") == 1
    assert len(reads) == 1


def test_python_names_no_option_of_the_command(tmp_path: Path) -> None:
    np.save(tmp_path / "deep.npy", SHALLOW.astype(np.uint16))
    with pytest.raises(
        DataError, match=r"use bits=16 to keep .*, or bits=8 to convert it"
    ) as error:
        colddiff.open_data(f"folder:{tmp_path}", storage=str(tmp_path / "runs"))
    assert "--bits" not in str(error.value)
    with pytest.warns(UserWarning, match="5 16-bit images were converted to 8 bits"):
        data = colddiff.open_data(f"folder:{tmp_path}", storage=str(tmp_path / "runs"), bits=8)
    assert data.manifest.image.bits == 8


def test_what_is_wrong_with_all_images_of_a_file_is_told_once(tmp_path: Path) -> None:
    np.save(tmp_path / "deep.npy", SHALLOW.astype(np.uint16))
    assert refused(
        tmp_path
    ) == "deep.npy: is a 16-bit image; use --bits 16 to keep its depth, in a " + (
        "grey set of one channel, or --bits 8 to convert it; "
        "`colddiff data pack --skip-broken` leaves such images out"
    )
