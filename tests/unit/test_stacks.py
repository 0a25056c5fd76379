"""Files that hold many images: arrays, TIFF of several pages, DICOM, NIfTI; whole, odd, hostile."""

from __future__ import annotations

import io
import pickle
import sys
import zipfile
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pydicom
import pytest
import tifffile
from numpy.typing import NDArray
from PIL import Image
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, JPEGLSLossless, generate_uid

from colddiff.data.open import open_source
from colddiff.data.pack import PackResult, pack
from colddiff.data.pack_settings import PackSettings
from colddiff.data.pil_images import decode_image
from colddiff.data.webdataset_tar import tar_description, tar_samples
from colddiff.errors import DataError, SpecError
from colddiff.spec import parse
from colddiff.stores.memory_store import MemoryStore

RNG = np.random.default_rng(3)
DEEP = RNG.integers(0, 65536, (5, 12, 10)).astype(np.uint16)
SHALLOW = (DEEP >> 8).astype(np.uint8)


def packed(folder: Path, **settings: Any) -> tuple[PackResult, dict[str, NDArray[Any]]]:
    """The set of a folder, and its images by the name of their source."""
    store, skip = MemoryStore("set"), settings.pop("skip_broken", False)
    chosen = parse(PackSettings, settings)
    result = pack(
        open_source(f"folder:{folder}", chosen), store, chosen, workers=2, skip_broken=skip
    )
    found = {}
    for shard in result.manifest.shards:
        data = store.get(shard.key)
        for sample in tar_samples(io.BytesIO(data), shard.key):
            name = str(tar_description(data, sample, shard.key)["source"])
            found[name] = decode_image(sample.image.of(data), name)
    return result, found


def grey(folder: Path, **settings: Any) -> NDArray[Any]:
    """The images of a set of one stack in the order of the stack, [N, H, W]."""
    _, found = packed(folder, **settings)
    return np.stack([found[name][:, :, 0] for name in sorted(found)])


def refused(folder: Path, kind: type[Exception] = DataError, **settings: Any) -> str:
    with pytest.raises(kind) as error:
        packed(folder, **settings)
    assert "\n" not in str(error.value)
    return str(error.value)


# --- arrays


def test_an_array_keeps_its_depth_and_its_order(tmp_path: Path) -> None:
    np.save(tmp_path / "deep.npy", DEEP)
    assert np.array_equal(grey(tmp_path, bits=16), DEEP)
    assert "use --bits 16" in refused(tmp_path)
    result, found = packed(tmp_path, bits=16)
    assert sorted(found) == [f"deep.npy#{n}" for n in range(5)]
    assert result.manifest.image.bits == 16


@pytest.mark.parametrize(
    ("shape", "count", "channels"),
    [
        ((12, 10), 1, 1),
        ((4, 12, 10), 4, 1),
        ((12, 10, 3), 1, 3),
        ((12, 10, 1), 1, 1),
        ((4, 12, 10, 3), 4, 3),
        ((4, 3, 12, 10), 4, 3),
        ((4, 1, 12, 10), 4, 1),
        ((2, 5, 12, 10), 10, 1),
    ],
)
def test_the_axes_of_an_array(
    tmp_path: Path, shape: tuple[int, ...], count: int, channels: int
) -> None:
    values = RNG.integers(0, 256, shape).astype(np.uint8)
    np.save(tmp_path / "x.npy", np.asfortranarray(values))
    result, found = packed(tmp_path)
    image = result.manifest.image
    assert (result.manifest.count, image.channels, image.height, image.width) == (
        count,
        channels,
        12,
        10,
    )
    last = found[max(found)]
    expected = values[-1] if len(shape) > 3 or (len(shape) == 3 and shape[2] > 3) else values
    if len(shape) == 4 and shape[1] in (1, 3):
        expected = expected.transpose(1, 2, 0)
    elif len(shape) == 4 and channels == 1:
        expected = expected[-1]
    assert np.array_equal(last, expected.reshape(12, 10, channels))


def test_floats_are_mapped_from_a_range_and_clipped_to_it(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.array([[[-2.0, 0.0], [0.5, 9.0]]] * 2).astype(">f4"))
    said = refused(tmp_path, SpecError)
    assert "range: is needed for" in said
    assert "holds >f4 values, -2 to 9 in this image" in said or "float32 values, -2 to 9" in said
    assert grey(tmp_path, range=(0, 1))[0].tolist() == [[0, 0], [128, 255]]
    assert grey(tmp_path, range=(-2, 9), bits=16)[0].tolist() == [[0, 11915], [14894, 65535]]


def test_signed_integers_need_a_range_and_truth_values_do_not(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.arange(-2, 4, dtype=np.int16).reshape(1, 2, 3))
    assert "int16 values, -2 to 3" in refused(tmp_path, SpecError)
    np.save(tmp_path / "x.npy", np.array([[True, False, True]] * 4))
    assert grey(tmp_path)[0, 0].tolist() == [255, 0, 255]


def test_a_range_of_levels_is_only_recorded(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", DEEP)
    result, found = packed(tmp_path, bits=16, range=(0, 3000))
    assert np.array_equal(found["x.npy#2"][:, :, 0], DEEP[2])
    assert result.manifest.image.range == (0, 3000)


def test_nan_is_named_with_its_image_and_may_be_skipped(tmp_path: Path) -> None:
    values = np.zeros((3, 4, 4))
    values[1, 2, 2], values[1, 0, 0] = np.nan, np.inf
    np.save(tmp_path / "x.npy", values)
    assert "x.npy#1: 2 of 16 values are NaN or infinite" in refused(tmp_path, range=(0, 1))
    result, _ = packed(tmp_path, range=(0, 1), skip_broken=True)
    assert (result.manifest.count, len(result.manifest.settings["skipped"])) == (2, 1)


def test_python_objects_are_never_loaded(tmp_path: Path) -> None:
    trap = tmp_path / "executed"

    class Trap:
        def __reduce__(self) -> Any:
            return Path.touch, (trap,)

    (tmp_path / "set").mkdir()
    for name in ("a.npy", "b.npz"):
        save: Any = np.save if name == "a.npy" else np.savez
        save(tmp_path / "set" / name, np.array([Trap()] * 4, dtype=object), allow_pickle=True)
        assert "holds Python objects, which are never loaded" in refused(tmp_path / "set")
        (tmp_path / "set" / name).unlink()
    (tmp_path / "set" / "c.npy").write_bytes(pickle.dumps(Trap()))
    assert "c.npy: not a NumPy array, or damaged" in refused(tmp_path / "set")
    assert not trap.exists()


def header(shape: str, dtype: str = "'|u1'") -> bytes:
    text = f"{{'descr': {dtype}, 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (header("(0, 8, 8)"), "holds no images: its shape is 0 x 8 x 8"),
        (header("(4, 0, 8)"), "holds no images"),
        (header("(2, 8, 8)") + bytes(64), "the file is cut off"),
        (header("(2, 2, 99999999999, 8, 8)"), "the file is cut off"),
        (header("(1, 999999, 999999)"), "the file is cut off"),
        (header("(8,)") + bytes(8), "has the shape [8]"),
        (header("(2, 2, 2, 2, 2)") + bytes(32), "has the shape [2, 2, 2, 2, 2]"),
        (header("(2, 8, 8)", "'<c8'") + bytes(1024), "holds complex64, not real numbers"),
        (header("(2, 8, 8)", "'<U1'") + bytes(512), "not real numbers"),
        (header("(2, -8, 8)"), "damaged: its shape is [2, -8, 8]"),
        (header("exit()"), "not a NumPy array, or damaged"),
        (b"", "not a NumPy array, or damaged"),
        (b"\x93NUMPY\x09\x00", "is of version (9, 0) of the format"),
    ],
)
def test_damaged_and_hostile_arrays(tmp_path: Path, data: bytes, said: str) -> None:
    (tmp_path / "x.npy").write_bytes(data)
    assert said in refused(tmp_path)
    Image.fromarray(SHALLOW[0]).save(tmp_path / "good.png")
    result, found = packed(tmp_path, skip_broken=True)
    assert sorted(found) == ["good.png"]
    assert said in result.manifest.settings["skipped"][0][1]


def test_the_arrays_of_an_npz_that_hold_images(tmp_path: Path) -> None:
    labels = np.eye(5)
    np.savez_compressed(tmp_path / "x.npz", train=SHALLOW[:3], test=SHALLOW[3:], labels=labels)
    result, _ = packed(tmp_path)
    assert np.array_equal(grey(tmp_path), SHALLOW)
    (left,) = result.manifest.settings["left_out"]
    assert (left["why"], left["first"]) == (
        "arrays of an .npz that hold no images",
        ["x.npz: labels.npy"],
    )
    np.savez(tmp_path / "x.npz", train=SHALLOW, masks=SHALLOW[:, :4])
    assert "its arrays differ (train.npy [5, 12, 10] uint8, masks.npy" in refused(tmp_path)
    np.savez(tmp_path / "x.npz", labels=np.arange(4))
    assert "holds no arrays of images" in refused(tmp_path)
    (tmp_path / "x.npz").write_bytes(b"PK\3\4 nothing")
    assert "not an .npz file, or damaged" in refused(tmp_path)
    with zipfile.ZipFile(tmp_path / "x.npz", "w") as archive:
        archive.writestr("notes.txt", "no array")
    assert "x.npz: notes.txt: not a NumPy array" in refused(tmp_path)


# --- splits and frames


def test_images_of_one_file_stay_in_one_split(tmp_path: Path) -> None:
    for n in range(40):
        np.save(tmp_path / f"{n}.npy", SHALLOW)
    _, test = packed(tmp_path, split="test", holdout=0.3)
    _, train = packed(tmp_path, split="train", holdout=0.3)
    files = [{name.partition("#")[0] for name in part} for part in (train, test)]
    assert len(train) + len(test) == 200
    assert all(files)
    assert not files[0] & files[1]


def test_only_the_first_image_of_each_file(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", SHALLOW)
    pages = [Image.fromarray(plane) for plane in SHALLOW]
    pages[0].save(tmp_path / "b.tif", save_all=True, append_images=pages[1:])
    result, found = packed(tmp_path, frames="first")
    assert sorted(found) == ["a.npy", "b.tif"]
    assert all(np.array_equal(image[:, :, 0], SHALLOW[0]) for image in found.values())
    (left,) = result.manifest.settings["left_out"]
    assert left["count"] == 2
    assert result.manifest.settings["frames"] == "first"
    assert "frames" not in packed(tmp_path)[0].manifest.settings


# --- TIFF


def test_pages_of_a_tiff_are_images(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "x.tif", DEEP, photometric="minisblack")
    assert np.array_equal(grey(tmp_path, bits=16), DEEP)
    tifffile.imwrite(tmp_path / "x.tif", DEEP, photometric="miniswhite", compression="zlib")
    assert np.array_equal(grey(tmp_path, bits=16), 65535 - DEEP)
    colour = RNG.integers(0, 256, (3, 12, 10, 3)).astype(np.uint8)
    planes = colour.transpose(0, 3, 1, 2)
    tifffile.imwrite(tmp_path / "x.tif", planes, photometric="rgb", planarconfig="separate")
    _, found = packed(tmp_path)
    assert all(np.array_equal(found[f"x.tif#{n}"], colour[n]) for n in range(3))


def test_planes_of_an_ome_tiff_and_an_imagej_stack(tmp_path: Path) -> None:
    planes = RNG.integers(0, 65536, (2, 3, 4, 12, 10)).astype(np.uint16)
    tifffile.imwrite(tmp_path / "x.ome.tif", planes, metadata={"axes": "TCZYX"}, ome=True)
    assert np.array_equal(grey(tmp_path, bits=16), planes.reshape(-1, 12, 10))
    (tmp_path / "x.ome.tif").unlink()
    tifffile.imwrite(tmp_path / "y.tif", DEEP, imagej=True, metadata={"axes": "ZYX"})
    assert np.array_equal(grey(tmp_path, bits=16), DEEP)


def test_thumbnails_of_a_tiff_are_left_out(tmp_path: Path) -> None:
    with tifffile.TiffWriter(tmp_path / "x.tif") as tiff:
        for plane in SHALLOW[:2]:
            tiff.write(plane, photometric="minisblack", metadata=None)
        tiff.write(SHALLOW[0, ::2, ::2], subfiletype=1, photometric="minisblack", metadata=None)
    result, found = packed(tmp_path)
    assert sorted(found) == ["x.tif#0", "x.tif#1"]
    (left,) = result.manifest.settings["left_out"]
    assert (left["why"].startswith("thumbnails"), left["count"]) == (True, 1)


def test_a_tiff_of_floats_is_mapped(tmp_path: Path) -> None:
    Image.fromarray(np.array([[0.0, 1.0]] * 2, np.float32)).save(tmp_path / "x.tif")
    assert "float32 values, 0 to 1" in refused(tmp_path, SpecError)
    assert grey(tmp_path, range=(0, 1))[0, 0].tolist() == [0, 255]


def test_a_tiff_whose_pages_lead_in_a_circle(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "x.tif", SHALLOW[:2], photometric="minisblack", metadata=None)
    data = bytearray((tmp_path / "x.tif").read_bytes())
    with tifffile.TiffFile(tmp_path / "x.tif") as tiff:
        first, second = (page.offset for page in tiff.pages)
    entries = int.from_bytes(data[second : second + 2], "little")
    end = second + 2 + 12 * entries
    data[end : end + 4] = first.to_bytes(4, "little")
    (tmp_path / "x.tif").write_bytes(data)
    assert packed(tmp_path)[0].manifest.count == 2


# --- DICOM


def dicom(path: Path, values: NDArray[Any], **fields: Any) -> FileDataset:
    """A DICOM file with these stored values, [H, W], [N, H, W] or [H, W, 3]."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = CTImageStorage
    meta.MediaStorageSOPInstanceUID = generate_uid()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    colour = values.ndim == 3 and values.shape[-1] == 3
    dataset.SOPClassUID, dataset.SOPInstanceUID = CTImageStorage, meta.MediaStorageSOPInstanceUID
    dataset.Rows, dataset.Columns = values.shape[-3:-1] if colour else values.shape[-2:]
    dataset.SamplesPerPixel = 3 if colour else 1
    if colour:
        dataset.PlanarConfiguration = 0
    elif values.ndim == 3:
        dataset.NumberOfFrames = len(values)
    dataset.PhotometricInterpretation = "RGB" if colour else "MONOCHROME2"
    dataset.BitsAllocated = dataset.BitsStored = 8 * values.dtype.itemsize
    dataset.HighBit = dataset.BitsStored - 1
    dataset.PixelRepresentation = int(values.dtype.kind == "i")
    dataset.PixelData = values.tobytes()
    for name, value in fields.items():
        setattr(dataset, name, value)
    dataset.save_as(path, enforce_file_format=True)
    return dataset


def test_a_dicom_file_keeps_its_depth(tmp_path: Path) -> None:
    twelve = DEEP[0] >> 4
    dicom(tmp_path / "x.dcm", twelve, BitsStored=12, HighBit=11)
    assert np.array_equal(grey(tmp_path, bits=16)[0], np.rint(twelve * (65535 / 4095)))
    assert "use --bits 16" in refused(tmp_path)
    windowed = grey(tmp_path, range=(0, 2048))[0]
    assert np.array_equal(windowed, np.rint(np.clip(twelve / 2048, 0, 1) * 255))


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
    assert "holds no image, such as a report" in refused(tmp_path)
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


# --- other stores, extras


def test_files_that_are_not_on_this_machine_are_fetched_once(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", SHALLOW)
    dicom(tmp_path / "b.dcm", SHALLOW)
    nibabel.save(nibabel.Nifti1Image(SHALLOW.T.copy(), np.eye(4)), tmp_path / "c.nii.gz")
    tifffile.imwrite(tmp_path / "d.tif", SHALLOW, photometric="minisblack")
    Image.fromarray(SHALLOW[0]).save(tmp_path / "e.tif")
    remote = Watched(MemoryStore("remote"))
    for path in tmp_path.iterdir():
        remote.put(f"in/{path.name}", path.read_bytes())
    there, here = MemoryStore("there"), MemoryStore("here")
    settings = PackSettings()
    remote.calls.clear()
    pack(FolderSource(remote), there, settings, workers=4)
    fetched = [call for call in remote.calls if "get" in call and ".tif" not in str(call)]
    assert len(fetched) == 3
    (tmp_path / "in").mkdir()
    for path in list(tmp_path.glob("*.*")):
        path.rename(tmp_path / "in" / path.name)
    result = pack(open_source(f"folder:{tmp_path}"), here, settings)
    assert result.manifest.count == 21
    assert there.get("shard-000000.tar") == here.get("shard-000000.tar")


@pytest.mark.parametrize(
    ("name", "package", "what"),
    [
        ("x.dcm", "pydicom", "DICOM"),
        ("x.nii.gz", "nibabel", "NIfTI"),
        ("x.tif", "tifffile", "TIFF"),
    ],
)
def test_an_extra_that_is_missing_is_named_with_its_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, package: str, what: str
) -> None:
    Image.fromarray(SHALLOW[0]).save(tmp_path / "a.png")
    pages = [Image.fromarray(plane) for plane in SHALLOW]
    pages[0].save(tmp_path / "x.tif", save_all=True, append_images=pages[1:])
    if name != "x.tif":
        (tmp_path / "x.tif").rename(tmp_path / name)
    monkeypatch.setitem(sys.modules, package, None)
    said = refused(tmp_path, SpecError, skip_broken=True)
    assert f"{name}: " in said
    assert what in said
    assert f"is read by {package}: pip install 'colddiff[medical]'" in said


def test_mixed_files_of_one_size_are_one_set(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", SHALLOW)
    dicom(tmp_path / "b.dcm", SHALLOW[0])
    tifffile.imwrite(tmp_path / "c.tif", SHALLOW, photometric="minisblack")
    Image.fromarray(SHALLOW[1]).save(tmp_path / "d.png")
    assert packed(tmp_path)[0].manifest.count == 12
    np.save(tmp_path / "e.npy", SHALLOW[:, :6, :6])
    assert "the images have 2 sizes (12 of 10x12, 5 of 6x6)" in refused(tmp_path)
    assert packed(tmp_path, image_size=6)[0].manifest.count == 17


def test_a_range_that_is_missing_leaves_nothing_behind(tmp_path: Path) -> None:
    (tmp_path / "src").mkdir()
    for n in range(20):
        Image.fromarray(SHALLOW[0]).save(tmp_path / "src" / f"{n}.png")
    np.save(tmp_path / "src" / "x.npy", SHALLOW[:1] / 255)
    store, settings = MemoryStore("set"), parse(PackSettings, {"shard_size": 2})
    with pytest.raises(SpecError, match="is needed for"):
        pack(open_source(f"folder:{tmp_path / 'src'}", settings), store, settings, workers=1)
    assert list(store.list()) == []
