"""Reads known omega (what is random in D) for each image from files, and writes drawn omega."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from colddiff.degradations import Degradation
from colddiff.errors import DataError, SpecError
from colddiff.machine.files import is_regular, read_regular
from colddiff.restoration.files import ImageFile
from colddiff.restoration.marks import original_name
from colddiff.rng import stream
from colddiff.spec.documents import DocumentError, read_json
from colddiff.stores.paths import expanded

SUFFIX = ".omega.safetensors"
OWN_SUFFIXES = (SUFFIX, ".omega.json")
"""Of files that hold omega and nothing else, such as lie beside an image."""
SUFFIXES = (*OWN_SUFFIXES, ".safetensors", ".json")
MOST_SHOWN = 4
"""Numbers of an entry that are written out in an example."""
MAX_BYTES = 4 * 2**30
Row = dict[str, Tensor]


def _files_of(name: str, suffixes: Sequence[str]) -> list[str]:
    """Names of the files that may hold omega of the image ``name``, its own name first."""
    names = dict.fromkeys((name, original_name(name)))
    return [f"{one}{suffix}" for one in names for suffix in suffixes]


class OmegaFiles:
    """omega of each image, from one file for all, or from a folder with one file per image.

    A file is safetensors or JSON. It contains the entries of one omega, without a batch dimension,
    used for every image: ``{"centre": [12, 7]}``; or entries by image name: in JSON
    ``{"a.png": {"centre": [12, 7]}, ...}``, in safetensors tensors named ``a.png/centre``. In a
    folder, image ``a`` uses ``a.omega.safetensors`` or ``a.omega.json``, the files that
    ``restore --degrade`` writes; so does ``a.degraded``, the image that it writes beside them.

    Raises DataError if the file or folder does not exist or cannot be parsed.
    """

    def __init__(self, place: str | Path) -> None:
        self.place = expanded(place)
        try:
            found = self.place.exists()
        except (OSError, ValueError, RuntimeError) as error:
            raise DataError(f"--omega: {str(place)[:80]!r} cannot be found ({error})") from None
        if not found:
            raise DataError(f"--omega: {self.place} does not exist")
        self._file = None if self.place.is_dir() else _read(self.place)

    def paths(self, names: Sequence[str]) -> list[Path]:
        """The files that are read for images of these names."""
        if self._file is not None:
            return [self.place]
        found = (self.place / file for name in names for file in _files_of(name, SUFFIXES))
        return [path for path in found if is_regular(path)]

    def row(self, D: Degradation[Any], name: str, path: Path) -> Row:
        """omega of one image, in D's dtypes; raises DataError or SpecError if it is invalid."""
        where, found = self._found(D, name, path)
        return _row(D, where, found, path)

    def _found(self, D: Degradation[Any], name: str, path: Path) -> tuple[Path, Mapping[str, Any]]:
        if self._file is None:
            for key in _files_of(name, SUFFIXES):
                file = self.place / key
                if file.is_file():
                    return file, _read(file)
            raise DataError(f"--omega: {self.place} has no {name}{SUFFIX} for {path}")
        original = [original_name(key) for key in (name, PurePosixPath(name).name)]
        keys = (f"{name}{path.suffix}", path.name, name, PurePosixPath(name).name)
        for key in (*keys, *(f"{key}{path.suffix}" for key in original), *original):
            if isinstance(self._file.get(key), Mapping):
                return self.place, self._file[key]
        return self.place, self._file


class OmegaBeside:
    """omega of each image from the file beside it, such as ``restore --degrade`` wrote with it.

    For an image ``a.png``, and for ``a.degraded.png`` that was made of it, that is
    ``a.omega.safetensors`` or ``a.omega.json`` in the same folder.
    """

    def __init__(self, files: Sequence[ImageFile]) -> None:
        self.found: dict[str, Path] = {}
        """By name of the image: the file beside it."""
        for file in files:
            names = _files_of(file.path.stem, OWN_SUFFIXES)
            beside = [path for name in names if is_regular(path := file.path.with_name(name))]
            if beside:
                self.found[file.name] = beside[0]

    def paths(self, names: Sequence[str]) -> list[Path]:
        """The files that are read for images of these names."""
        return [self.found[name] for name in names if name in self.found]

    def row(self, D: Degradation[Any], name: str, path: Path) -> Row:
        """omega of one image, in D's dtypes; raises DataError or SpecError if it is invalid."""
        if name not in self.found:
            raise DataError(
                f"{path}: no {path.stem}{SUFFIX} lies beside it, as beside other images: give what "
                f"is random in {D.spec.kind} with --omega"
            )
        return _row(D, self.found[name], _read(self.found[name]), path)


def _row(D: Degradation[Any], where: Path, found: Mapping[str, Any], path: Path) -> Row:
    missing = [entry for entry in D.omega_names if entry not in found]
    if missing:
        raise DataError(
            f"{where}: has no {', '.join(missing)} for {path.name} ({D.spec.kind} needs "
            f"{', '.join(D.omega_names)}, such as {omega_example(D)})"
        )
    like = _templates(D)
    row = {entry: _tensor(found[entry], like[entry], where, entry) for entry in D.omega_names}
    shape = D.shape
    D.place_omega(
        {entry: value.unsqueeze(0) for entry, value in row.items()}, torch.zeros(1, *shape.chw)
    )
    return row


def omega_example(D: Degradation[Any]) -> str:
    """An omega of one image as JSON, with arrays of many numbers as their shape alone.

    ``{"centre": [14, 3]}``, ``{"base": (32 x 32 numbers), "vertical": true}``.
    """
    return f"{{{', '.join(f'{json.dumps(k)}: {_shown(v)}' for k, v in _templates(D).items())}}}"


def _shown(value: Tensor) -> str:
    if value.numel() > MOST_SHOWN:
        return f"({' x '.join(map(str, value.shape))} numbers)"
    if value.is_floating_point():
        rounded = np.round(value.double().numpy(), 2)
        return json.dumps((rounded.astype(int) if (rounded % 1 == 0).all() else rounded).tolist())
    return json.dumps(value.tolist())


def save_row(row: Mapping[str, Tensor]) -> bytes:
    """Serialise omega of one image, in the format that ``OmegaFiles`` reads."""
    return safetensors.torch.save({name: value.contiguous() for name, value in row.items()})


def _read(path: Path) -> dict[str, Any]:
    """Entries by name, or entries by image name."""
    try:
        data = read_regular(path, MAX_BYTES)
    except OSError as error:
        raise DataError(f"--omega: {path} cannot be read ({error.strerror})") from None
    try:
        if path.suffix == ".json":
            found = read_json(data, most_bytes=MAX_BYTES)
        elif path.suffix == ".safetensors":
            found = _nested(safetensors.torch.load(data))
        else:
            raise SpecError(f"--omega: {path} is neither .json nor .safetensors")
    except (SafetensorError, ValueError, KeyError, DocumentError) as error:
        if isinstance(error, SpecError):
            raise
        raise DataError(f"--omega: {path} cannot be parsed ({error})") from None
    if not isinstance(found, dict):
        raise DataError(f"--omega: {path} must contain entries by name")
    return found


def _nested(tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, tensor in tensors.items():
        image, separator, entry = key.rpartition("/")
        if separator:
            found.setdefault(image, {})[entry] = tensor
        else:
            found[key] = tensor
    return found


def _templates(D: Degradation[Any]) -> dict[str, Tensor]:
    """A sample row of omega, for the dtypes and shapes of D's entries."""
    images = torch.zeros(1, *D.shape.chw)
    drawn = D.draw(1, rng=[stream(0, "restore/template")], images=lambda rng: images)
    return {name: value[0] for name, value in drawn.items()}


def _tensor(value: Any, like: Tensor, where: Path, entry: str) -> Tensor:
    try:
        tensor = value if isinstance(value, Tensor) else torch.tensor(value)
    except (TypeError, ValueError, RuntimeError, OverflowError) as error:
        raise DataError(f"{where}: {entry} is not an array of numbers ({error})") from None
    # Also accept a batch dimension of 1, as in the result of `D.draw(1)`.
    if tensor.ndim == like.ndim + 1 and tensor.shape[0] == 1:
        tensor = tensor[0]
    return tensor.to(like.dtype)
