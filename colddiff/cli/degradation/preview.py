"""`colddiff preview`: a picture of what a degradation does to the user's images."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from colddiff.cli.degradation.target import Target, Variant, Words, read_target
from colddiff.cli.output import emit, note

if TYPE_CHECKING:
    from torch import Tensor

    from colddiff.degradations import Degradation
    from colddiff.types import Image, ImageShape

SIZE = 128
MARK = "colddiff-preview"
"""Keyword of a text chunk in the pictures."""


def preview(
    words: Words,
    image: Annotated[
        list[Path], typer.Option("--image", metavar="IMG...", help="One or more image files.")
    ],
    out: Annotated[Path, typer.Option("--out", metavar="PNG", help="The picture to write.")],
    seed: Annotated[int, typer.Option(help="Seed of what is random in D.")] = 0,
    columns: Annotated[
        int | None,
        typer.Option(min=2, max=40, help="Number of severities shown; default: about nine."),
    ] = None,
    variant: Variant = None,
) -> None:
    """Draw what a degradation does over t. For each image, with plots of the schedule and the RMSE
    below.
    """
    from colddiff.data.pil_images import with_png_text
    from colddiff.errors import SpecError

    # The shell expands `--image *.png` to one option value and further positional words.
    more = [word for word in words if _is_image(word)]
    words = [word for word in words if word not in more]
    image = [*image, *map(Path, more)]
    target = read_target(words, variant, image_size=SIZE)
    if not out.parent.is_dir():
        raise SpecError(f"--out: no such folder: {str(out.parent)!r}; create it first")
    _refuse_other_file(out, image)
    picture = _picture(target, _images(image, target.shape), seed, columns)
    try:
        out.write_bytes(with_png_text(picture, MARK, ""))
    except OSError as error:
        raise SpecError(f"--out: {out} cannot be written ({error.strerror})") from None
    note(str(target))
    emit(str(out))


def _refuse_other_file(out: Path, images: list[Path]) -> None:
    """Raises SpecError if the picture would replace an image, or a file that is no preview."""
    from colddiff.data.pil_images import png_text
    from colddiff.errors import SpecError
    from colddiff.machine.files import is_regular, read_regular

    if os.path.realpath(out) in {os.path.realpath(path) for path in images}:
        raise SpecError(f"--out: {out} is one of the images, and is not replaced; use another name")
    if is_regular(out) and png_text(read_regular(out), MARK) is None:
        raise SpecError(
            f"--out: {out} already exists and was not drawn by `colddiff preview`, so it is not "
            "replaced; use another name"
        )


def _is_image(word: str) -> bool:
    from colddiff.data.sources.image_folder import SUFFIXES

    return "=" not in word and Path(word).suffix.lower() in SUFFIXES


def _images(paths: list[Path], shape: ImageShape) -> Image:
    """The images, resized to the target's size, float32 [N, C, H, W] in [-1, 1]."""
    import numpy as np
    import torch

    from colddiff.data.pil_images import FILE_FORMATS, crop_and_resize, decode_image, with_channels
    from colddiff.data.problems import Problems
    from colddiff.data.sources.image_folder import MAX_FILE_BYTES
    from colddiff.errors import DataError, SpecError
    from colddiff.machine.files import read_regular
    from colddiff.stores.paths import nearest_path
    from colddiff.transforms import normalise

    if shape.channels not in (1, 3):
        raise SpecError(f"preview supports images with 1 or 3 channels, not {shape.channels}")
    images, problems = [], Problems()
    for path in paths:
        if path.is_dir():
            raise SpecError(f"--image: {path} is a folder{_file_of(path)}")
        try:
            data = read_regular(path, MAX_FILE_BYTES)
            decoded = decode_image(data, str(path), FILE_FORMATS)
        except OSError as error:
            instead = nearest_path(path) or (_file_of(path.parent) if path.parent.is_dir() else "")
            problems.add(f"--image: {path} cannot be read ({error.strerror}){instead}")
            continue
        except DataError as error:
            problems.add(str(error))
            continue
        pixels = crop_and_resize(decoded, shape.height)
        pixels = with_channels(pixels, shape.channels)
        images.append(normalise(torch.from_numpy(np.array(pixels.transpose(2, 0, 1)))))
    problems.refuse("images cannot be drawn")
    return torch.stack(images)


def _file_of(folder: Path) -> str:
    """How to name a file of a folder, the first of its images if it has any."""
    try:
        found = min((path for path in folder.iterdir() if _is_image(path.name)), default=None)
    except OSError:
        found = None
    return "; give image files" if found is None else f"; give files of it, such as {found}"


def _picture(target: Target, x0: Image, seed: int, columns: int | None) -> bytes:
    import torch

    from colddiff.report.preview import Curve, draw_preview, shown_severities
    from colddiff.severity_profile import labelled_parameters, measure_severity_profile

    D, T = target.spec.build(target.shape), target.spec.num_timesteps
    omega = _omega(D, x0, seed)
    severities = shown_severities(T, columns)
    states = [D.degrade(x0, torch.full((len(x0),), t), omega) for t in severities]
    strips = torch.stack(states, dim=1).clamp(-1, 1)
    profile = measure_severity_profile(D, x0, omega)
    curves = [Curve(label, values) for label, values in labelled_parameters(D).items()]
    curves.append(Curve("RMSE of D(x0, t) against x0, on the scale 0..1", profile.rmse))
    return draw_preview(
        ((strips + 1) * 127.5).round().to(torch.uint8).numpy(),
        severities,
        curves,
        num_timesteps=T,
        title=str(target),
        subtitle=_settings(target, D, seed),
    )


def _omega(D: Degradation[Any], x0: Image, seed: int) -> dict[str, Tensor]:
    from colddiff.errors import SpecError
    from colddiff.rng import streams

    if not D.omega_images:
        return D.draw(len(x0), rng=streams(seed, "preview", range(len(x0))))
    if len(x0) < 2:
        raise SpecError(
            f"{D.spec.kind} mixes in images of a second set: pass at least two --image; each is "
            "mixed with the next"
        )
    return {name: x0.roll(-1, dims=0) for name in D.omega_images}


def _settings(target: Target, D: Degradation[Any], seed: int) -> str:
    """The fields of the spec on one line, and the seed if D is random."""
    fields = [
        f"{name} {_text(value)}"
        for name, value in target.spec.to_dict().items()
        if name not in ("kind", "num_timesteps") and value is not None
    ]
    drawn = [f"seed {seed}"] if D.omega_names and not D.omega_images else []
    return ",  ".join([*fields, *drawn])


def _text(value: Any) -> str:
    if isinstance(value, dict):
        kind = [str(value["kind"])] if "kind" in value else []
        rest = [f"{k} {_text(v)}" for k, v in value.items() if k != "kind" and v is not None]
        return " ".join([*kind, *rest])
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        shown = [_text(item) for item in value[:3]]
        return f"[{', '.join(shown)}{', ...' if len(value) > len(shown) else ''}]"
    return str(value)
