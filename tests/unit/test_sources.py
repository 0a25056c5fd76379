"""Sources: the published layouts as they are found, and clear words where they are not."""

from __future__ import annotations

import gzip
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from sklearn.datasets import load_digits

from colddiff.data import pil_images as images
from colddiff.data.open import open_source, read_manifest
from colddiff.data.pil_images import Pixels, decode_image, encode_png
from colddiff.errors import ColddiffError, DataError, SpecError
from colddiff.stores.s3_store import S3Store
from tests.conftest import S3Service


def idx(values: NDArray[np.uint8]) -> bytes:
    header = struct.pack(f">{1 + values.ndim}I", 2048 + values.ndim, *values.shape)
    return header + values.tobytes()


def write_mnist(folder: Path, count: int = 5, suffix: str = ".gz") -> NDArray[np.uint8]:
    folder.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(0).integers(0, 256, (2 * count, 28, 28)).astype(np.uint8)
    for prefix, part in (("train", pixels[:count]), ("t10k", pixels[count:])):
        for kind, values in (("images-idx3", part), ("labels-idx1", np.arange(count) % 10)):
            data = idx(values.astype(np.uint8))
            path = folder / f"{prefix}-{kind}-ubyte{suffix}"
            path.write_bytes(gzip.compress(data) if suffix == ".gz" else data)
    return pixels


def all_of(source: str, split: str | None = None) -> list[tuple[str, int | None, Pixels]]:
    opened = open_source(source)
    return [(e.name, e.label, opened.load(e)) for e in opened.entries(split)]


def save(path: Path, array: NDArray[np.generic], **settings: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path, **settings)  # type: ignore[arg-type]


def test_digits_are_parsed_once_in_a_process() -> None:
    one, other = open_source("digits"), open_source("digits")
    (entry, *_) = one.entries(None)
    assert np.shares_memory(one.load(entry), other.load(entry))
    with pytest.raises(ValueError, match="read-only"):
        one.load(entry)[:] = 0


def test_digits_keep_every_value_and_label() -> None:
    found = all_of("digits")
    values, labels = load_digits(return_X_y=True)
    assert len(found) == 1797
    assert [label for _, label, _ in found] == labels.tolist()
    stack = np.stack([pixels for _, _, pixels in found])
    assert stack.shape == (1797, 8, 8, 1)
    assert stack.dtype == np.uint8
    assert stack.max() == 255
    np.testing.assert_array_equal(np.rint(stack.reshape(1797, 64).astype(float) * 16 / 255), values)


@pytest.mark.parametrize("suffix", [".gz", ""])
@pytest.mark.parametrize("below", ["", "raw", "MNIST/raw"])
def test_mnist_in_the_places_it_is_found_in(tmp_path: Path, suffix: str, below: str) -> None:
    pixels = write_mnist(tmp_path / below, suffix=suffix)
    for split, part, name in (("train", pixels[:5], "train"), ("test", pixels[5:], "test")):
        found = all_of(f"mnist:{tmp_path}", split)
        assert [n for n, _, _ in found] == [f"{name}/{n:05d}" for n in range(5)]
        assert [label for _, label, _ in found] == [0, 1, 2, 3, 4]
        np.testing.assert_array_equal(np.stack([p for _, _, p in found])[..., 0], part)


def test_mnist_that_is_damaged_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no train-images-idx3-ubyte\[\.gz\] found"):
        all_of(f"mnist:{tmp_path}")
    write_mnist(tmp_path, suffix="")
    images_path, labels_path = (
        tmp_path / "train-images-idx3-ubyte",
        tmp_path / "train-labels-idx1-ubyte",
    )
    whole, labels = images_path.read_bytes(), labels_path.read_bytes()
    for path, data, said in (
        (images_path, whole[:-1], "its header says"),
        (images_path, whole[:9], "magic number is None"),
        (images_path, b"", "magic number is None"),
        (images_path, labels, "expected 2051; not an idx file of this kind"),
        (images_path, struct.pack(">4I", 2051, 2**31, 2**31, 2**31), "its header says"),
        (images_path, idx(np.zeros((0, 28, 28), np.uint8)), "5 labels for the 0 images"),
        (labels_path, idx(np.zeros(4, np.uint8)), "4 labels for the 5 images"),
    ):
        images_path.write_bytes(whole)
        labels_path.write_bytes(labels)
        path.write_bytes(data)
        with pytest.raises(DataError, match=said) as caught:
            all_of(f"mnist:{tmp_path}")
        assert str(path) in str(caught.value)


@pytest.mark.parametrize("damage", [lambda d: d[:-20], lambda d: d[:40] + b"xxxx" + d[44:]])
def test_a_damaged_gzip_is_named(tmp_path: Path, damage: object) -> None:
    write_mnist(tmp_path)
    path = tmp_path / "train-images-idx3-ubyte.gz"
    path.write_bytes(damage(path.read_bytes()))  # type: ignore[operator]
    with pytest.raises(DataError, match=r"train-images.*(damaged|cannot be read)"):
        all_of(f"mnist:{tmp_path}")


def write_cifar(folder: Path) -> NDArray[np.uint8]:
    folder.mkdir(parents=True)
    pixels = np.random.default_rng(0).integers(0, 256, (9, 32, 32, 3)).astype(np.uint8)
    for name, part in (("data_batch_1", pixels[:3]), ("data_batch_2", pixels[3:6])):
        _write_batch(folder / f"{name}.bin", part)
    _write_batch(folder / "test_batch.bin", pixels[6:])
    return pixels


def _write_batch(path: Path, part: NDArray[np.uint8]) -> None:
    records = part.transpose(0, 3, 1, 2).reshape(len(part), -1)
    labels = np.arange(len(part), dtype=np.uint8)[:, None]
    path.write_bytes(np.concatenate([labels, records], axis=1).tobytes())


@pytest.mark.parametrize("below", ["", "cifar-10-batches-bin"])
def test_cifar10_in_its_binary_layout(tmp_path: Path, below: str) -> None:
    folder = tmp_path / "cifar" / below
    pixels = write_cifar(folder)
    place = f"cifar10:{tmp_path / 'cifar'}"
    train, test = all_of(place, "train"), all_of(place, "test")
    np.testing.assert_array_equal(np.stack([p for _, _, p in train]), pixels[:6])
    np.testing.assert_array_equal(np.stack([p for _, _, p in test]), pixels[6:])
    assert [label for _, label, _ in train] == [0, 1, 2, 0, 1, 2]
    assert open_source(place).classes[:2] == ("airplane", "automobile")
    (folder / "batches.meta.txt").write_text("a\nb\n\n")
    assert open_source(place).classes == ("a", "b")


def test_cifar10_that_is_not_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no data_batch_1\.bin found; use the folder"):
        all_of(f"cifar10:{tmp_path}")
    (tmp_path / "cifar-10-batches-py").mkdir()
    (tmp_path / "cifar-10-batches-py" / "data_batch_1").write_bytes(b"\x80\x04")
    with pytest.raises(DataError, match="pickles are never loaded"):
        all_of(f"cifar10:{tmp_path}")
    write_cifar(tmp_path / "c")
    batch = tmp_path / "c" / "data_batch_2.bin"
    whole = batch.read_bytes()
    batch.write_bytes(whole[:-1])
    with pytest.raises(DataError, match=rf"{batch}: .* not a whole number of 3073"):
        all_of(f"cifar10:{tmp_path / 'c'}")
    batch.write_bytes(b"\x63" + whole[1:])
    with pytest.raises(DataError, match="label above 9"):
        all_of(f"cifar10:{tmp_path / 'c'}")


def test_a_folder_is_read_with_its_classes(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    colour = rng.integers(0, 256, (6, 5, 3)).astype(np.uint8)
    grey = rng.integers(0, 256, (6, 5)).astype(np.uint8)
    save(tmp_path / "b" / "deep" / "2.png", colour)
    save(tmp_path / "a" / "1.PNG", grey)
    save(tmp_path / "top.bmp", colour)
    save(tmp_path / "b" / "lossless.webp", colour, lossless=True)
    save(tmp_path / ".hidden" / "x.png", grey)
    save(tmp_path / "a" / "._x.png", grey)
    (tmp_path / "a" / "notes.txt").write_text("not an image")
    found = all_of(f"folder:{tmp_path}")
    assert [(name, label) for name, label, _ in found] == [
        ("a/1.PNG", 0),
        ("b/deep/2.png", 1),
        ("b/lossless.webp", 1),
        ("top.bmp", None),
    ]
    assert open_source(f"folder:{tmp_path}").classes == ("a", "b")
    np.testing.assert_array_equal(found[0][2][..., 0], grey)
    for _, _, pixels in found[1:]:
        np.testing.assert_array_equal(pixels, colour)


def test_a_folder_in_s3(s3_service: S3Service) -> None:
    bucket = s3_service.new_bucket()
    grey = np.arange(12, dtype=np.uint8).reshape(3, 4, 1)
    S3Store(bucket).put("raw/cats/1.png", encode_png(grey))
    [(name, label, pixels)] = all_of(f"folder:s3://{bucket}/raw")
    assert (name, label) == ("cats/1.png", 0)
    np.testing.assert_array_equal(pixels, grey)


def test_an_empty_or_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=rf"folder:{tmp_path}: no images found"):
        all_of(f"folder:{tmp_path}")
    with pytest.raises(DataError, match=rf"folder:{tmp_path / 'nothing'}: no such folder"):
        all_of(f"folder:{tmp_path / 'nothing'}")


def test_sixteen_bit_grey_is_kept(tmp_path: Path) -> None:
    deep = (np.arange(64, dtype=np.uint16) * 1023).reshape(8, 8)
    save(tmp_path / "deep.png", deep)
    save(tmp_path / "deep.tif", deep)
    for _, _, pixels in all_of(f"folder:{tmp_path}"):
        assert pixels.dtype == np.uint16
        np.testing.assert_array_equal(pixels[..., 0], deep)
    np.testing.assert_array_equal(decode_image(encode_png(deep[:, :, None]), "x")[..., 0], deep)


def sixteen_bit_colour_png() -> bytes:
    import zlib

    def chunk(kind: bytes, data: bytes) -> bytes:
        body = kind + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

    header = struct.pack(">IIBBBBB", 2, 2, 16, 2, 0, 0, 0)
    rows = zlib.compress(b"".join(b"\0" + bytes(range(12)) for _ in range(2)))
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize(
    ("name", "data", "said"),
    [
        ("empty.png", b"", "not a supported image"),
        ("text.jpg", b"hello", "not a supported image"),
        (
            "deep.png",
            sixteen_bit_colour_png(),
            "more than 8 bits per channel are supported for grey images only",
        ),
        ("cut.png", encode_png(np.zeros((64, 64, 3), np.uint8))[:-30], "cannot be decoded"),
        ("pickle.png", b"\x80\x04\x95", "not a supported image"),
    ],
)
def test_an_image_that_does_not_decode_is_named(
    tmp_path: Path, name: str, data: bytes, said: str
) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(DataError, match=rf"{tmp_path / name}: .*{said}"):
        all_of(f"folder:{tmp_path}")


def test_a_format_that_is_not_on_the_list_is_not_opened(tmp_path: Path) -> None:
    save(tmp_path / "image.png", np.zeros((4, 4), np.uint8), format="GIF")
    with pytest.raises(DataError, match="not a supported image"):
        all_of(f"folder:{tmp_path}")


def test_an_image_that_would_fill_the_memory_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # 300 MB of pixels in 300 kB: the header alone is looked at.
    Image.new("L", (17_000, 17_000)).save(tmp_path / "bomb.png", compress_level=9)
    with pytest.raises(DataError, match=r"bomb\.png: .*pixels"):
        all_of(f"folder:{tmp_path}")
    monkeypatch.setattr(images, "MAX_PIXELS", 15)
    save(tmp_path / "bomb.png", np.zeros((4, 4), np.uint8))
    with pytest.raises(DataError, match="4x4 is more than the limit of 15 pixels"):
        all_of(f"folder:{tmp_path}")


def test_a_photograph_stands_upright(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    lying = np.zeros((4, 8, 3), np.uint8)
    save(tmp_path / "phone.jpg", lying, exif=exif)
    [(_, _, pixels)] = all_of(f"folder:{tmp_path}")
    assert pixels.shape == (8, 4, 3)


@pytest.mark.parametrize("text", ["", "digit", "mnist:", "mnist", "imagenet:/x", "folder:", "x:y"])
def test_an_unknown_source_is_refused(text: str) -> None:
    with pytest.raises(SpecError, match=r"no source .*digits, mnist:DIR"):
        open_source(text)


@pytest.mark.parametrize(
    ("kind", "write", "below"),
    [
        ("mnist", write_mnist, ""),
        ("mnist", write_mnist, "MNIST/raw"),
        ("cifar10", write_cifar, "cifar-10-batches-bin"),
    ],
)
def test_a_folder_of_a_published_set_is_told_by_its_files(
    tmp_path: Path, kind: str, write: Callable[[Path], object], below: str
) -> None:
    with pytest.raises(SpecError, match=f"did you mean 'folder:{tmp_path}'"):
        open_source(str(tmp_path))
    write(tmp_path / below)
    with pytest.raises(SpecError, match=f"did you mean '{kind}:{tmp_path}'"):
        open_source(str(tmp_path))
    # Where packed data is asked for, too.
    with pytest.raises(DataError, match=f"a published set .*pack {kind}:{tmp_path} --out") as error:
        read_manifest(str(tmp_path))
    assert f"takes {kind}:{tmp_path} itself" in str(error.value)


def test_a_place_of_an_unknown_kind_is_refused() -> None:
    with pytest.raises(ColddiffError, match="'pipe://cat x' is not a storage address"):
        open_source("folder:pipe://cat x")
