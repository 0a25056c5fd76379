"""Files of many images, made and packed by tests."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

from colddiff.data.open import open_source
from colddiff.data.pack import PackResult, pack
from colddiff.data.pack_settings import PackSettings
from colddiff.data.pil_images import decode_image
from colddiff.data.webdataset_tar import tar_description, tar_samples
from colddiff.errors import DataError
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
