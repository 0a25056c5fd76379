"""Restores images in memory with a checkpoint: ``colddiff.restore``."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from operator import index
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from colddiff.checkpoints.references import LoadedCheckpoint, load_checkpoint
from colddiff.data.pil_images import crop_and_resize
from colddiff.errors import ColddiffError, SpecError
from colddiff.machine.tqdm_bar import reported
from colddiff.restoration.forward import Forward
from colddiff.restoration.pictures import Picture, as_array, pictures_in
from colddiff.restoration.settings import RestoreSettings
from colddiff.samplers import DEFAULT
from colddiff.spec.documents import shown
from colddiff.transforms import normalise
from colddiff.types import Image, ImageShape, Omega, ProgressCallback

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

INTEGERS = (torch.uint8, torch.uint16)
CHANNELS = (1, 3, 4)
"""Of images; 4 with transparency, which no checkpoint takes."""
LARGEST = 16.0
"""No image in [-1, 1] has larger values, also with noise of standard deviation 1; levels have."""


def restore(
    checkpoint: LoadedCheckpoint | str,
    images: Tensor | ArrayLike | Picture | Sequence[Picture],
    *,
    severity: int | None = None,
    sampler: str = DEFAULT,
    severities: int | Sequence[int] | None = None,
    omega: Omega | None = None,
    fit: bool = False,
    any_size: bool = False,
    batch_size: int | None = None,
    precision: str = "fp32",
    device: torch.device | str = "cpu",
    progress: bool | ProgressCallback = False,
) -> Image:
    """x_0 of degraded images, float32 [B, C, H, W], clamped to [-1, 1]; on the CPU.

    Bit for bit what `colddiff restore` makes of the same pixels, before it rounds them::

        restored = colddiff.restore("JOB@best", x_t, severity=12, progress=True)
        restored = colddiff.restore("JOB@best", "photo.jpg", fit=True)

    Args:
        checkpoint: what ``load_checkpoint`` returned, or what it takes: a job's id, a folder, ...
        images: x_t, [B, C, H, W]: floating in [-1, 1], or uint8 or uint16 as they are stored; or
            the path of a file, a PIL image, or a list of these.
        severity: of the images, 1..T; default: the first of ``severities``, else T.
        sampler: a name in ``colddiff.samplers``; the default is Algorithm 2.
        severities: number of even steps, or a list falling to 0; default: every severity.
        omega: what is random in D on these images, by name, [B, ...]; needed where D is random.
        fit: take the centre square of images of another size, resized to the checkpoint's.
        any_size: restore images of another size at it, for which the network was not trained.
        batch_size: rows of every forward pass; by default chosen by the size of the images alone.
        precision: of R's arithmetic, fp32 or bf16.
        device: where R runs.
        progress: True for a bar, or a function that is called with (done, total).

    Raises:
        SpecError: settings that D does not support, images of a wrong shape or with NaN, of another
            size without ``fit`` or ``any_size``, omega that is missing.
        DataError: images of a size that R cannot take; files or PIL images that do not suit it.
        ColddiffError: R(x_t, t) is not finite for some image.
    """
    loaded = checkpoint if isinstance(checkpoint, LoadedCheckpoint) else load_checkpoint(checkpoint)
    x = _sized(images, loaded.spec.shape, fit=fit, any_size=any_size)
    settings = RestoreSettings(
        severity=_whole("severity", severity),
        sampler=sampler,
        severities=_severities(severities),
        batch_size=_whole("batch_size", batch_size),
        precision=precision,
        fit=fit,
        any_size=any_size,
    )
    try:
        settings.check(loaded.degradation)
        rows = _rows_of(omega, len(x), settings, loaded)
    except SpecError as error:
        raise _in_python(error) from None
    return _restored(loaded, settings, x, rows, _device(device), progress)


def _restored(
    checkpoint: LoadedCheckpoint,
    settings: RestoreSettings,
    x: Image,
    omegas: Sequence[Mapping[str, Tensor]],
    device: torch.device,
    progress: bool | ProgressCallback,
) -> Image:
    shape = ImageShape(*x.shape[1:])
    (start,) = settings.starts(checkpoint.degradation.num_timesteps)
    total = len(x) * (len(settings.steps(start)) - 1)
    done, found = 0, []
    with reported(progress, total, f"restore ({settings.sampler})", "call") as report:

        def advance(images: int) -> None:
            nonlocal done
            done += images
            report(done, total)

        forward = Forward(checkpoint, shape, settings, device, advance)
        for first in range(0, len(x), forward.rows):
            part = slice(first, first + forward.rows)
            outcome = forward.restored(list(x[part]), omegas[part], start)
            if not bool(outcome.finite.all()):
                bad = [first + n for n, ok in enumerate(outcome.finite.tolist()) if not ok]
                raise ColddiffError(f"R(x_t, t) contains NaN or inf for images {bad}")
            found.append(outcome.x_0.clamp(-1, 1))
    return torch.cat(found).clone()


def _sized(images: Any, wanted: ImageShape, *, fit: bool, any_size: bool) -> Image:
    """Arrays or pictures at the size of a checkpoint; an error names both sizes and the way out."""
    pictures = pictures_in(images)
    if pictures is not None:
        return as_array(pictures, wanted, fit=fit, any_size=any_size)
    x = as_images(images)
    _warn_of_unit_range(images, x)
    channels, height, width = x.shape[1:]
    if channels != wanted.channels:
        last = x.shape[3] in CHANNELS and channels not in CHANNELS
        way_out = f"; if they are [B, H, W, C], use {_moved('images', '(0, 3, 1, 2)')}"
        raise SpecError(
            f"images: have {channels} channels, the checkpoint takes {wanted.channels}"
            f"{way_out if last else ''}"
        )
    if (height, width) == (wanted.height, wanted.width) or (any_size and not fit):
        return x
    if not fit:
        sizes = f"{height}x{width} px, the checkpoint takes {wanted.height}x{wanted.width}"
        raise SpecError(
            f"images: are {sizes}; fit=True crops the centre square and resizes it, any_size=True "
            "restores at the original size, for which the network was not trained"
        )
    stored = images if isinstance(images, Tensor) else torch.from_numpy(np.array(images))
    if stored.dtype in INTEGERS:  # as the command resizes the same pixels
        pixels = stored.permute(0, 2, 3, 1).cpu().numpy()
        fitted = np.stack([crop_and_resize(image, wanted.height) for image in pixels])
        return normalise(torch.from_numpy(fitted).permute(0, 3, 1, 2))
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    square = x[:, :, top : top + side, left : left + side]
    size = (wanted.height, wanted.width)
    return functional.interpolate(
        square, size, mode="bilinear", align_corners=False, antialias=True
    )


def as_images(images: Tensor | ArrayLike, name: str = "images") -> Image:
    """Images as float32 [B, C, H, W] in [-1, 1]; raises SpecError for what cannot be meant.

    Integers are levels as they are stored (uint8 or uint16); anything else is taken as it is.
    """
    try:
        array = images if isinstance(images, Tensor) else torch.from_numpy(np.array(images))
    except (TypeError, ValueError) as error:
        raise SpecError(f"{name}: cannot be read as an array ({error})") from None
    if array.ndim != 4 or 0 in array.shape:
        raise SpecError(
            f"{name}: must be [B, C, H, W], at least one, got {list(array.shape)}"
            f"{_one_image(array.shape)}"
        )
    if array.dtype in INTEGERS:
        return normalise(array)
    if not array.is_floating_point():
        raise SpecError(f"{name}: must be floating, uint8 or uint16, got {array.dtype}")
    x = array.detach().to("cpu", torch.float32)
    if not bool(torch.isfinite(x).all()):
        raise SpecError(f"{name}: contain NaN or inf")
    low, high = float(x.min()), float(x.max())
    if max(-low, high) > LARGEST:
        raise SpecError(
            f"{name}: values must be in [-1, 1], got {low:.4g} to {high:.4g}; divide levels of 8 "
            "bits by 127.5 and subtract 1, or pass them as uint8"
        )
    return x


def _warn_of_unit_range(images: Any, x: Image) -> None:
    """Warns of floating values that look like [0, 1]: taken as [-1, 1] they are far too bright."""
    dtype = images.dtype if hasattr(images, "dtype") else np.asarray(images).dtype
    integers = dtype in INTEGERS if isinstance(dtype, torch.dtype) else dtype.kind == "u"
    low, high = float(x.min()), float(x.max())
    if not integers and 0 <= low < high <= 1:
        warnings.warn(
            f"images: are {low:.3g} to {high:.3g}, and taken as values in [-1, 1]; if 0 is black, "
            "pass x * 2 - 1",
            stacklevel=4,  # at the caller of colddiff.restore
        )


def _one_image(shape: Sequence[int]) -> str:
    """How to write one image of ``shape`` as a batch of one, if it is one."""
    if len(shape) == 2:
        return "; for one grey image [H, W] use image[None, None]"
    if len(shape) != 3:
        return ""
    if shape[2] in CHANNELS and shape[0] not in CHANNELS:
        return f"; for one image [H, W, C] use {_moved('image', '(2, 0, 1)')}[None]"
    return "; for one image [C, H, W] use image[None]"


def _moved(name: str, axes: str) -> str:
    return f"numpy.transpose({name}, {axes})"


def _whole(name: str, value: Any) -> int | None:
    """``value`` as Python's integer; SpecError for what is none, such as a truth value."""
    if value is None:
        return None
    try:
        if not isinstance(value, bool):
            return index(value)
    except (TypeError, ValueError):
        pass
    raise SpecError(f"{name}: must be one whole number, got {shown(value)}")


def _severities(value: Any) -> int | tuple[int, ...] | None:
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return tuple(_whole("severities", one) or 0 for one in value)
    return _whole("severities", value)


def _device(name: Any) -> torch.device:
    try:
        return torch.device(name)
    except (RuntimeError, TypeError, ValueError):
        raise SpecError(f"device: must be one of torch, such as cpu, got {shown(name)}") from None


def _rows_of(
    omega: Omega | None,
    count: int,
    settings: RestoreSettings,
    checkpoint: LoadedCheckpoint,
) -> list[dict[str, Tensor]]:
    D = checkpoint.degradation
    if not settings.needs_omega(D):
        return [{}] * count
    if not omega:
        settings.refuse_unknown_omega(D)
    if not isinstance(omega, Mapping | None):
        raise SpecError(f"omega: must be tensors by name, got {shown(omega)}")
    given = dict(omega or {})
    for name in D.omega_names:
        if name not in given or len(given[name]) != count:
            got = f"{len(given[name])} rows" if name in given else "none"
            raise SpecError(f"omega[{name!r}]: must have a row for each of {count} images, {got}")
    return [{name: given[name][n].cpu() for name in D.omega_names} for n in range(count)]


def _in_python(error: SpecError) -> SpecError:
    """The error with the arguments of ``restore`` instead of the options of the command."""
    text = str(error)
    for name in ("severity", "severities", "sampler", "batch-size", "precision", "omega"):
        text = text.replace(f"--{name} FILE", name).replace(f"--{name}", name.replace("-", "_"))
    return SpecError(text.replace(" (or degrade clean images with --degrade)", ""))
