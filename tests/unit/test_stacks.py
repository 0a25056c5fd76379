"""Files that hold many images: arrays and TIFF of several pages; whole, odd, hostile."""

from __future__ import annotations

import pickle
import sys
import zipfile
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import tifffile
from PIL import Image

from colddiff.data.open import open_source
from colddiff.data.pack import pack
from colddiff.data.pack_settings import PackSettings
from colddiff.data.sources.image_folder import FolderSource
from colddiff.errors import SpecError
from colddiff.spec import parse
from colddiff.stores.local_store import LocalStore
from colddiff.stores.memory_store import MemoryStore
from tests.stacks import DEEP, RNG, SHALLOW, dicom, grey, packed, refused

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


@pytest.mark.parametrize("shape", [(8, 8, 4), (2, 8, 8, 4)], ids=str)
def test_colour_with_alpha_is_not_taken_for_narrow_slices(
    tmp_path: Path, shape: tuple[int, ...]
) -> None:
    np.save(tmp_path / "x.npy", np.zeros(shape, np.uint8))
    assert "with 4 channels; 1 and 3 are read: leave alpha out" in refused(tmp_path)


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


def test_palettes_bilevel_pages_and_pages_that_are_not_read(tmp_path: Path) -> None:
    index = RNG.integers(0, 256, (2, 12, 10)).astype(np.uint8)
    colours = RNG.integers(0, 256, (3, 256)).astype(np.uint16) * 257
    tifffile.imwrite(tmp_path / "x.tif", index, photometric="palette", colormap=colours)
    expected = (colours >> 8).T[index]
    found = packed(tmp_path)[1]
    assert all(np.array_equal(found[f"x.tif#{n}"], expected[n]) for n in range(2))
    pages = [Image.fromarray(plane > 128) for plane in index]
    pages[0].save(tmp_path / "x.tif", save_all=True, append_images=pages[1:], compression="group4")
    assert np.array_equal(grey(tmp_path), 255 * (index > 128))
    inks = RNG.integers(0, 256, (2, 12, 10, 4)).astype(np.uint8)
    tifffile.imwrite(tmp_path / "x.tif", inks, photometric="separated")
    assert "holds SEPARATED of 4 samples a pixel" in refused(tmp_path)
    tifffile.imwrite(tmp_path / "x.tif", inks, photometric="rgb", extrasamples=["unassalpha"])
    assert np.array_equal(packed(tmp_path)[1]["x.tif#1"], inks[1, :, :, :3])


@pytest.mark.parametrize("compression", ["lzw", "zlib", "jpeg"])
def test_compressed_pages(tmp_path: Path, compression: Any) -> None:
    tifffile.imwrite(tmp_path / "x.tif", SHALLOW, photometric="minisblack", compression=compression)
    difference = np.abs(grey(tmp_path).astype(int) - SHALLOW).mean()
    assert difference <= (12 if compression == "jpeg" else 0)


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


# --- other stores, extras


def test_files_that_are_not_on_this_machine_are_fetched_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    np.save(tmp_path / "a.npy", SHALLOW)
    dicom(tmp_path / "b.dcm", SHALLOW)
    nibabel.save(nibabel.Nifti1Image(SHALLOW.T.copy(), np.eye(4)), tmp_path / "c.nii.gz")
    tifffile.imwrite(tmp_path / "d.tif", SHALLOW, photometric="minisblack")
    Image.fromarray(SHALLOW[0]).save(tmp_path / "e.tif")
    remote, fetched = MemoryStore("remote"), list[str]()
    for path in tmp_path.iterdir():
        remote.put(f"in/{path.name}", path.read_bytes())
    there, here = MemoryStore("there"), MemoryStore("here")
    settings = PackSettings()

    def get(key: str) -> bytes:
        fetched.append(key)
        return MemoryStore.get(remote, key)

    monkeypatch.setattr(remote, "get", get)
    pack(FolderSource(remote), there, settings, workers=4)
    # A TIFF of one page is fetched to see that it is one, and to be decoded as others are.
    assert sorted(fetched) == [f"in/{n}" for n in ("a.npy", "b.dcm", "c.nii.gz", "d.tif")] + [
        "in/e.tif",
        "in/e.tif",
    ]
    (tmp_path / "in").mkdir()
    for path in list(tmp_path.glob("*.*")):
        path.rename(tmp_path / "in" / path.name)
    result = pack(open_source(f"folder:{tmp_path}"), here, settings)
    assert result.manifest.count == 21
    assert there.get("shard-000000.tar") == here.get("shard-000000.tar")


@pytest.mark.parametrize(
    ("name", "package", "what"),
    [("x.dcm", "pydicom", "DICOM"), ("x.nii.gz", "nibabel", "NIfTI")],
)
def test_an_extra_that_is_missing_is_named_with_its_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, package: str, what: str
) -> None:
    Image.fromarray(SHALLOW[0]).save(tmp_path / "a.png")
    (tmp_path / name).write_bytes(b"")
    monkeypatch.setitem(sys.modules, package, None)
    said = refused(tmp_path, SpecError, skip_broken=True)
    assert f"{name}: " in said
    assert what in said
    assert f"is read by {package}: pip install 'colddiff[medical]'" in said


def test_a_tiff_whose_extra_is_missing_is_one_of_the_bad_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Image.fromarray(SHALLOW[0]).save(tmp_path / "a.png")
    pages = [Image.fromarray(plane) for plane in SHALLOW]
    for name in ("x.tif", "y.tif"):
        pages[0].save(tmp_path / name, save_all=True, append_images=pages[1:])
    monkeypatch.setitem(sys.modules, "tifffile", None)
    said = refused(tmp_path)
    assert "x.tif: a TIFF of several pages or of floats is read by tifffile" in said
    assert "[medical]' (and 1 more like it); `colddiff data pack --skip-broken" in said
    manifest = packed(tmp_path, skip_broken=True)[0].manifest
    assert (manifest.count, len(manifest.settings["skipped"])) == (1, 2)


def test_a_set_that_an_earlier_version_packed_stays_the_set_of_its_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Image.fromarray(SHALLOW[0]).save(tmp_path / "a.png")
    pages = [Image.fromarray(plane) for plane in SHALLOW]
    pages[0].save(tmp_path / "b.tif", save_all=True, append_images=pages[1:])
    np.save(tmp_path / "features.npy", np.zeros((3, 3)))
    store, settings = MemoryStore("set"), PackSettings()
    earlier = FolderSource(LocalStore(tmp_path), one_image_a_file=True)
    assert pack(earlier, store, settings).manifest.count == 2
    monkeypatch.setitem(sys.modules, "tifffile", None)  # which was not needed either
    again = pack(open_source(f"folder:{tmp_path}", settings), store, settings)
    assert (again.fresh, again.manifest.count) == (False, 2)
    with pytest.raises(SpecError):
        pack(open_source(f"folder:{tmp_path}"), store, PackSettings(limit=9))
    monkeypatch.undo()
    # What came after it is not passed over: that is another set.
    np.save(tmp_path / "more.npy", SHALLOW)
    (tmp_path / "features.npy").unlink()
    changed = r"from other images \(10 images are new, 0 are gone\); pack .* jobs trained on it"
    with pytest.raises(SpecError, match=changed):
        pack(open_source(f"folder:{tmp_path}"), store, settings)


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
