"""DICOM and NIfTI: depth, physical values, orientation; whole, odd, hostile."""

from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
import pydicom
from pydicom.dataset import Dataset
from pydicom.uid import JPEGLSLossless

from colddiff.errors import SpecError
from tests.stacks import DEEP, RNG, SHALLOW, dicom, grey, packed, refused

# --- DICOM


def test_a_dicom_file_keeps_its_depth(tmp_path: Path) -> None:
    twelve = DEEP[0] >> 4
    dicom(tmp_path / "x.dcm", twelve, BitsStored=12, HighBit=11)
    assert np.array_equal(grey(tmp_path, bits=16)[0], np.rint(twelve * (65535 / 4095)))
    assert "use --bits 16" in refused(tmp_path)
    windowed = grey(tmp_path, range=(0, 2048))[0]
    assert np.array_equal(windowed, np.rint(np.clip(twelve / 2048, 0, 1) * 255))


def test_a_dicom_file_of_32_bits_needs_a_range(tmp_path: Path) -> None:
    dicom(tmp_path / "x.dcm", np.array([[0, 70_000, 140_000]] * 2, np.uint32))
    assert "uint32 values, 0 to 140000" in refused(tmp_path, SpecError)
    assert grey(tmp_path, range=(0, 140_000))[0, 0].tolist() == [0, 128, 255]


def test_files_that_scanners_and_other_programs_wrote(tmp_path: Path) -> None:
    for name, count in (("examples_palette", 1), ("examples_ybr_color", 30), ("MR_small_RLE", 1)):
        path = Path(str(pydicom.data.get_testdata_file(f"{name}.dcm", download=False)))
        (tmp_path / name).mkdir()
        (tmp_path / name / "x.dcm").write_bytes(path.read_bytes())
        assert packed(tmp_path / name, range=(0, 2145))[0].manifest.count == count


def test_hounsfield_units_are_mapped_from_a_range(tmp_path: Path) -> None:
    stored = np.array([[0, 24, 1024, 4095]] * 3, np.uint16)
    dicom(tmp_path / "ct.dcm", stored, RescaleSlope=1, RescaleIntercept=-1024)
    assert "float64 values, -1024 to 3071" in refused(tmp_path, SpecError)
    assert grey(tmp_path, range=(-1000, 1000), bits=16)[0, 0].tolist() == [0, 0, 32768, 65535]
    dicom(tmp_path / "ct.dcm", stored.astype(np.int16) - 1024)
    assert "int16 values, -1024 to 3071" in refused(tmp_path, SpecError)
    assert grey(tmp_path, range=(-1000, 1000))[0, 0].tolist() == [0, 0, 128, 255]


def test_monochrome1_is_stored_upright(tmp_path: Path) -> None:
    dicom(tmp_path / "x.dcm", SHALLOW[0], PhotometricInterpretation="MONOCHROME1")
    assert np.array_equal(grey(tmp_path)[0], 255 - SHALLOW[0])
    dicom(tmp_path / "x.dcm", SHALLOW[0], PhotometricInterpretation="MONOCHROME1", RescaleSlope=2)
    expected = 255 - np.rint(SHALLOW[0] / 2).clip(0, 255)
    mapped = grey(tmp_path, range=(0, 1020))[0]
    assert np.abs(mapped.astype(int) - expected).max() <= 1


def test_the_scale_of_each_frame_of_an_enhanced_file(tmp_path: Path) -> None:
    def group(slope: float) -> Dataset:
        inner, item = Dataset(), Dataset()
        inner.RescaleSlope, inner.RescaleIntercept = slope, 10
        item.PixelValueTransformationSequence = [inner]
        return item

    frames = np.full((2, 4, 4), 100, np.uint8)
    dicom(tmp_path / "x.dcm", frames, PerFrameFunctionalGroupsSequence=[group(1), group(2)])
    assert grey(tmp_path, range=(0, 255))[:, 0, 0].tolist() == [110, 210]


def test_frames_and_colour_of_dicom(tmp_path: Path) -> None:
    dicom(tmp_path / "x.dcm", SHALLOW)
    assert np.array_equal(grey(tmp_path), SHALLOW)
    colour = RNG.integers(0, 256, (12, 10, 3)).astype(np.uint8)
    dicom(tmp_path / "x.dcm", colour)
    assert np.array_equal(packed(tmp_path)[1]["x.dcm"], colour)
    deep = RNG.integers(0, 65536, (12, 10, 3)).astype(np.uint16)
    dicom(tmp_path / "x.dcm", deep)
    assert "colour of more than 8 bits per channel" in refused(tmp_path)


def test_a_dicom_file_without_a_suffix_is_one(tmp_path: Path) -> None:
    dicom(tmp_path / "IM000001", SHALLOW[0])
    (tmp_path / "README").write_bytes(b"no image" * 40)
    result, found = packed(tmp_path)
    assert np.array_equal(found["IM000001"][:, :, 0], SHALLOW[0])
    assert [left["first"] for left in result.manifest.settings["left_out"]] == [["README"]]


def test_dicom_compressed_without_a_decoder_names_the_package(tmp_path: Path) -> None:
    dataset = dicom(tmp_path / "x.dcm", SHALLOW[0])
    dataset.file_meta.TransferSyntaxUID = JPEGLSLossless
    dataset.PixelData = pydicom.encaps.encapsulate([b"\xff\xd8\xff\xf7 no pixels"])
    dataset["PixelData"].is_undefined_length = True
    dataset.save_as(tmp_path / "x.dcm")
    said = refused(tmp_path)
    assert "is compressed as JPEG-LS Lossless" in said
    assert "pip install pylibjpeg" in said


def test_dicom_files_without_pixels_or_damaged(tmp_path: Path) -> None:
    dataset = dicom(tmp_path / "x.dcm", SHALLOW[0])
    whole = (tmp_path / "x.dcm").read_bytes()
    (tmp_path / "x.dcm").write_bytes(whole[:-40])
    assert "x.dcm: its pixels cannot be decoded" in refused(tmp_path)
    del dataset.PixelData, dataset.Rows, dataset.Columns
    dataset.save_as(tmp_path / "x.dcm")
    assert "no images found; passed over: DICOM files without an image" in refused(tmp_path)
    dicom(tmp_path / "y.dcm", SHALLOW[0])
    result, _ = packed(tmp_path)
    assert [left["first"] for left in result.manifest.settings["left_out"]] == [["x.dcm"]]
    (tmp_path / "y.dcm").unlink()
    (tmp_path / "x.dcm").write_bytes(b"no image")
    assert "not a DICOM file, or damaged" in refused(tmp_path)
    dicom(tmp_path / "x.dcm", SHALLOW[0], NumberOfFrames=2_000_000_000)
    assert "are more than the limits" in refused(tmp_path)


# --- NIfTI


def test_axial_slices_of_a_volume_with_the_front_at_the_top(tmp_path: Path) -> None:
    volume = RNG.integers(0, 65536, (10, 12, 4)).astype(np.uint16)  # x, y, z
    expected = volume.transpose(2, 1, 0)[:, ::-1]
    nibabel.save(nibabel.Nifti1Image(volume, np.eye(4)), tmp_path / "x.nii.gz")
    assert np.array_equal(grey(tmp_path, bits=16), expected)
    # The same volume, as a scanner stores it whose axes are z, -x, y.
    turned = volume[::-1].transpose(2, 0, 1)
    affine = np.array([[0, -1, 0, 9], [0, 0, 1, 0], [1, 0, 0, 0], [0, 0, 0, 1.0]])
    nibabel.save(nibabel.Nifti1Image(turned, affine), tmp_path / "x.nii.gz")
    assert np.array_equal(grey(tmp_path, bits=16), expected)


def test_volumes_over_time_colours_and_scaled_values(tmp_path: Path) -> None:
    series = RNG.integers(0, 256, (10, 12, 4, 3)).astype(np.uint8)
    nibabel.save(nibabel.Nifti1Image(series, np.eye(4)), tmp_path / "x.nii")
    expected = series.transpose(3, 2, 1, 0)[:, :, ::-1].reshape(-1, 12, 10)
    assert np.array_equal(grey(tmp_path), expected)
    colour = np.zeros((10, 12, 2), [("R", "u1"), ("G", "u1"), ("B", "u1")])
    colour["G"] = series[:, :, :2, 0]
    nibabel.save(nibabel.Nifti1Image(colour, np.eye(4)), tmp_path / "x.nii")
    _, found = packed(tmp_path)
    assert np.array_equal(found["x.nii#1"][:, :, 1], series[:, ::-1, 1, 0].T)
    image = nibabel.Nifti1Image(np.arange(240, dtype=np.int16).reshape(10, 12, 2), np.eye(4))
    image.header.set_slope_inter(2, -100)
    nibabel.save(image, tmp_path / "x.nii")
    assert "float64 values" in refused(tmp_path, SpecError)
    (first, _) = grey(tmp_path, range=(-100, 410))
    assert first[-1, 0] == 0
    assert first.max() == np.rint(((238 * 2) / 510) * 255)


def test_damaged_volumes(tmp_path: Path) -> None:
    volume = RNG.integers(0, 256, (30, 32, 9)).astype(np.uint8)
    nibabel.save(nibabel.Nifti1Image(volume, np.eye(4)), tmp_path / "x.nii.gz")
    whole = (tmp_path / "x.nii.gz").read_bytes()
    (tmp_path / "x.nii.gz").write_bytes(whole[: len(whole) // 2])
    assert "x.nii.gz: cannot be read" in refused(tmp_path)
    (tmp_path / "x.nii.gz").write_bytes(b"no volume")
    assert "not a NIfTI file, or damaged" in refused(tmp_path)
    header = nibabel.Nifti1Header()
    header.set_data_dtype(np.uint8)
    header.set_data_shape((10, 12, 0))
    (tmp_path / "x.nii.gz").unlink()
    (tmp_path / "x.nii").write_bytes(header.binaryblock + bytes(4))
    assert "holds no images" in refused(tmp_path)
    header.set_data_shape((8000, 8000, 30000))
    (tmp_path / "x.nii").write_bytes(header.binaryblock + bytes(4))
    assert "are more than the limits" in refused(tmp_path)
