"""`colddiff data show|duplicates`: what a packed set holds, images alike."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from colddiff.cli.options import Json
from colddiff.cli.output import emit, emit_json, note, one_line
from colddiff.cli.progress import ProgressBar
from colddiff.machine.wording import counted

if TYPE_CHECKING:
    from collections.abc import Mapping

    from colddiff.data.readers.overview import SetOverview

MARK = "colddiff-data"
"""Keyword of a text chunk in the pictures."""
SHOWN_CLASSES = 20

Uri = Annotated[str, typer.Argument(metavar="URI", help="A folder, or s3://bucket/prefix.")]


def show(
    uri: Uri,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="PNG", help="Write a contact sheet of images.")
    ] = None,
    images: Annotated[
        int, typer.Option("--images", min=1, max=1024, help="Images on it, evenly chosen.")
    ] = 64,
    names: Annotated[
        bool, typer.Option("--names", help="List the files that the images were packed from.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Show what a packed set holds. Sizes, classes, grey levels, what was left out.

    Of a folder with the splits train and test, both are shown.
    """
    from colddiff.data.manifest import splits_in
    from colddiff.errors import SpecError
    from colddiff.stores.open import absolute, open_store

    if out is not None:
        _refuse_other_file(out)
    splits = splits_in(open_store(uri))
    places = {split: f"{absolute(uri).rstrip('/')}/{split}" for split in splits}
    if out is not None and places:
        commands = " or ".join(
            f"`{shlex.join(['colddiff', 'data', 'show', place, '--out', str(out)])}`"
            for place in places.values()
        )
        raise SpecError(f"--out: is of one set, and {uri} holds {len(places)}: {commands}")
    if names:
        _list_names(list(places.values()) or [uri], as_json)
        return
    shown = [_show(place, out, images, as_json) for place in places.values() or [uri]]
    if as_json:
        emit_json(dict(zip(places, shown, strict=True)) if places else shown[0])


def _show(uri: str, out: Path | None, images: int, as_json: bool) -> dict[str, Any]:
    """One set: told as lines unless ``as_json``; JSON-ready."""
    from colddiff.cli.data import as_data, summary_line
    from colddiff.data.manifest import left_out_of
    from colddiff.data.readers.overview import overview
    from colddiff.stores.open import absolute

    progress = ProgressBar("read", "images")
    try:
        found = overview(uri, images, progress)
    finally:
        progress.close()
    place = absolute(uri)
    if out is not None:
        _write(out, found, place)
    if not as_json:
        emit(summary_line(found.manifest, place))
        emit(f"source: {one_line(_source(found))}")
        emit(f"classes: {one_line(_classes(found))}")
        low, mean, high = found.levels
        of = 2**found.manifest.image.bits - 1
        emit(f"levels: {low} to {high} of {of}, mean {mean:.4g}, in {len(found.images)} images")
        emit(f"range: {_range(found)}")
        for line in left_out_of(found.manifest) or ["nothing"]:
            emit(f"left out: {one_line(line)}")
        if out is not None:
            emit(f"picture: {out}")
    return {**as_data(found.manifest, place), **_more(found, out)}


def _list_names(uris: list[str], as_json: bool) -> None:
    """A line for each image: its file's name, and before it the set where there are several."""
    from colddiff.data.open import open_shards
    from colddiff.data.readers.image_data import names_of
    from colddiff.stores.open import open_store

    stores = {uri: open_store(uri) for uri in uris}
    found = {uri: names_of(store, open_shards(store).manifest) for uri, store in stores.items()}
    if as_json:
        emit_json({uri: list(names) for uri, names in found.items()})
        return
    for uri, names in found.items():
        split = f"{uri.rpartition('/')[2]}\t" if len(uris) > 1 else ""
        for name in names:
            emit(f"{split}{one_line(name)}")


def duplicates(
    uri: Uri,
    other: Annotated[
        str | None,
        typer.Argument(metavar="[URI2]", help="Second set, such as the test split; default: URI."),
    ] = None,
    bits: Annotated[
        int, typer.Option(min=0, max=16, help="Maximum number of differing bits in 64-bit hashes.")
    ] = 4,
    rmse: Annotated[
        float, typer.Option(min=0, max=1, help="Maximum RMSE at 16x16 px, on the scale 0..1.")
    ] = 0.04,
    as_json: Json = False,
) -> None:
    """Find near-duplicate images within a set, or between two sets."""
    from colddiff.data import packed_sets as datasets
    from colddiff.stores.open import absolute

    progress = ProgressBar("compared", "images")
    try:
        pairs = datasets.near_duplicates(uri, other, bits, rmse, progress)
    finally:
        progress.close()
    sides = {"first": uri, "second": other or uri}
    images = {side: len({pair[side]["index"] for pair in pairs}) for side in sides}
    if as_json:
        sets = {
            side: {"uri": absolute(place), "images": images[side]} for side, place in sides.items()
        }
        emit_json({**sets, "pairs": pairs})
        return
    for pair in pairs:
        first, second = (one_line(_named(pair[side])) for side in sides)
        emit(f"{first} ~ {second}: {pair['bits']} bits, rmse {pair['rmse']:.4f}")
    found = counted(len(pairs), "near-duplicate pair")
    if other is None:
        alike = _images(len({pair[side]["index"] for pair in pairs for side in sides}))
        note(f"{found}{f', of {alike},' if pairs else ''} within {uri}")
    elif pairs:
        note(
            f"{found}: {_images(images['first'])} of {uri}, {_images(images['second'])} of {other}"
        )
    else:
        note(f"{found} between {uri} and {other}")


def _images(count: int) -> str:
    return counted(count, "image")


def _named(image: Mapping[str, Any]) -> str:
    """An image by the file it was packed from, else by where it lies."""
    return image["name"] or f"{image['index']} ({image['shard']} no. {image['number']})"


def _source(found: SetOverview) -> str:
    settings = found.manifest.settings
    named = ("split", "holdout", "group_by", "image_size", "limit", "frames")
    set_ = [f"{name} {settings[name]}" for name in named if settings.get(name) is not None]
    return ", ".join([found.manifest.source or "unknown", *set_])


def _classes(found: SetOverview) -> str:
    counts = [f"{name} ({count})" for name, count in found.classes.items()]
    if len(counts) > SHOWN_CLASSES:
        counts = [*counts[:SHOWN_CLASSES], f"and {len(counts) - SHOWN_CLASSES} more"]
    if found.unlabelled:
        counts.append(f"without a label ({found.unlabelled})")
    return ", ".join(counts) if found.classes else "none"


def _range(found: SetOverview) -> str:
    of = found.manifest.image.range
    return "none recorded" if of is None else f"black is {of[0]:g}, white is {of[1]:g}"


def _more(found: SetOverview, out: Path | None) -> dict[str, Any]:
    low, mean, high = found.levels
    return {
        "source": found.manifest.source,
        "settings": dict(found.manifest.settings),
        "images_by_class": found.classes,
        "unlabelled": found.unlabelled,
        "levels": {"min": low, "mean": mean, "max": high, "images": len(found.images)},
        "picture": None if out is None else str(out),
    }


def _write(out: Path, found: SetOverview, uri: str) -> None:
    from colddiff.data.pil_images import with_png_text
    from colddiff.report.contact_sheet import contact_sheet
    from colddiff.stores.local_store import LocalStore

    about = uri.encode("ascii", "backslashreplace").decode()
    picture = with_png_text(contact_sheet(found.images), MARK, about)
    # Whole or not at all: a picture of an earlier call stays until this one is complete.
    LocalStore(out.parent.absolute()).put(out.name, picture)


def _refuse_other_file(out: Path) -> None:
    """SpecError if the picture would replace a file that is no contact sheet of a set."""
    from colddiff.data.pil_images import png_text
    from colddiff.errors import SpecError
    from colddiff.machine.files import is_regular, read_regular

    if out.suffix.lower() != ".png":
        raise SpecError(f"--out: {out} must end in .png")
    if not out.parent.is_dir():
        raise SpecError(f"--out: no such folder: {str(out.parent)!r}; create it first")
    if out.exists() and not (is_regular(out) and png_text(read_regular(out), MARK) is not None):
        raise SpecError(
            f"--out: {out} already exists and was not drawn by `colddiff data show`, so it is not "
            "replaced; use another name"
        )
