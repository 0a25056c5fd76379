"""`colddiff data`: packs images into shards, indexes tars, checks what was packed."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from colddiff.cli.options import Json
from colddiff.cli.output import emit, emit_json, talk
from colddiff.cli.progress import Progress
from colddiff.data.open import pack_source, read_manifest
from colddiff.errors import SpecError
from colddiff.stores.open import absolute

if TYPE_CHECKING:
    from colddiff.ports import Manifest

app = typer.Typer(no_args_is_help=True, help="Image sets as shards with a manifest.")

Uri = Annotated[str, typer.Argument(metavar="URI", help="A folder, or s3://bucket/prefix.")]


Source = Annotated[
    str,
    typer.Argument(
        metavar="SOURCE",
        help="digits, mnist:DIR, cifar10:DIR, folder:DIR, folder:s3://..., webdataset:URI.",
    ),
]
Out = Annotated[str, typer.Option("--out", metavar="URI", help="A folder, or s3://bucket/prefix.")]
Split = Annotated[
    str | None,
    typer.Option(metavar="train|test", help="Official where there is one, else by --holdout."),
]
ImageSize = Annotated[
    int | None,
    typer.Option(metavar="N", help="Side in px: the centre square, bilinearly resized."),
]
Channels = Annotated[int | None, typer.Option(metavar="1|3", help="Else those of the first image.")]
Bits = Annotated[int, typer.Option(metavar="8|16", help="Depth that is stored.")]
ValueRange = Annotated[
    str | None,
    typer.Option(
        "--range",
        metavar="LO,HI",
        help="What 0 and the largest stored value stand for; recorded, not applied.",
    ),
]
Holdout = Annotated[
    float | None, typer.Option(metavar="F", help="Part of the images that is the test split.")
]
GroupBy = Annotated[
    str | None,
    typer.Option(metavar="REGEX", help="Images in whose names it finds the same stay together."),
]
Limit = Annotated[int | None, typer.Option(metavar="N", help="At most N images.")]
ShardSize = Annotated[int, typer.Option(metavar="N", help="Images per shard.")]
Threads = Annotated[
    int | None,
    typer.Option(metavar="N", min=1, help="Threads at work; the result is the same."),
]


@app.command()
def pack(
    source: Source,
    out: Out,
    split: Split = None,
    image_size: ImageSize = None,
    channels: Channels = None,
    bits: Bits = 8,
    value_range: ValueRange = None,
    holdout: Holdout = None,
    group_by: GroupBy = None,
    limit: Limit = None,
    shard_size: ShardSize = 1000,
    workers: Threads = None,
    as_json: Json = False,
) -> None:
    """Packs images into tars of PNG with a manifest; run again after a kill, it goes on."""
    progress = Progress("packed", "images")
    try:
        manifest, fresh = pack_source(
            source,
            out,
            on_progress=progress,
            workers=workers,
            split=split,
            image_size=image_size,
            channels=channels,
            bits=bits,
            range=_range(value_range),
            holdout=holdout,
            group_by=group_by,
            limit=limit,
            shard_size=shard_size,
        )
    finally:
        progress.close()
    if not fresh:
        talk(f"{out} had been packed before, with the same settings")
    _say("packed", manifest, absolute(out), as_json)


@app.command()
def index(uri: Uri, as_json: Json = False) -> None:
    """Writes a manifest beside existing webdataset tars of PNG or JPEG images of one size."""
    from colddiff.data import packed_sets as datasets

    progress = Progress("indexed", "shards")
    try:
        manifest = datasets.index_shards(uri, progress)
    finally:
        progress.close()
    _say("indexed", manifest, absolute(uri), as_json)


@app.command()
def verify(uri: Uri, as_json: Json = False) -> None:
    """Checks every shard against the manifest; exit code 1 names each one that does not match."""
    from colddiff.data import packed_sets as datasets

    progress = Progress("verified", "bytes")
    try:
        manifest = read_manifest(uri)
        bad = datasets.verify_shards(uri, progress)
    finally:
        progress.close()
    if as_json:
        emit_json(
            {
                "uri": absolute(uri),
                "digest": manifest.digest,
                "shards": len(manifest.shards),
                "bad": [asdict(shard) for shard in bad],
            }
        )
    else:
        for shard in bad:
            emit(f"{shard.key}: {shard.problem}")
        if not bad:
            emit(f"{_counted(manifest)} as the manifest {manifest.digest[:12]} says")
    if bad:
        talk(f"{len(bad)} of {_counted(manifest)} bad; pack the data again")
        raise typer.Exit(1)


@app.command()
def duplicates(
    uri: Uri,
    other: Annotated[
        str | None,
        typer.Argument(metavar="[URI2]", help="Another set, such as the test part; else the same."),
    ] = None,
    bits: Annotated[
        int, typer.Option(min=0, max=16, help="Bits in which the hashes may differ, of 64.")
    ] = 4,
    rmse: Annotated[
        float, typer.Option(min=0, max=1, help="Largest difference at 16x16 px, of 1.")
    ] = 0.04,
    as_json: Json = False,
) -> None:
    """Reports images that nearly equal others of the same set, or of a second one."""
    from colddiff.data import packed_sets as datasets

    progress = Progress("compared", "images")
    try:
        pairs = datasets.near_duplicates(uri, other, bits, rmse, progress)
    finally:
        progress.close()
    sides = {"first": uri, "second": other or uri}
    images = {side: len({pair[side]["index"] for pair in pairs}) for side in sides}
    if as_json:
        told = {
            side: {"uri": absolute(place), "images": images[side]} for side, place in sides.items()
        }
        emit_json({**told, "pairs": pairs})
        return
    for pair in pairs:
        first, second = (
            f"{pair[side]['index']} ({pair[side]['shard']} no. {pair[side]['number']})"
            for side in sides
        )
        emit(f"{first} ~ {second}: {pair['bits']} bits, rmse {pair['rmse']:.4f}")
    talk(
        f"{len(pairs)} near pairs: {images['first']} images of {uri} and "
        f"{images['second']} of {other or 'it'}"
    )


def _range(text: str | None) -> tuple[float, float] | None:
    if text is None:
        return None
    try:
        low, high = (float(part) for part in text.split(","))
    except ValueError:
        raise SpecError(f"--range {text!r}: write two numbers, such as -1000,3000") from None
    return low, high


def _say(verb: str, manifest: Manifest, uri: str, as_json: bool) -> None:
    size = sum(shard.bytes for shard in manifest.shards)
    if as_json:
        emit_json(
            {
                "uri": uri,
                "digest": manifest.digest,
                "count": manifest.count,
                "image": asdict(manifest.image),
                "shards": len(manifest.shards),
                "bytes": size,
                "classes": list(manifest.classes),
            }
        )
        return
    image = manifest.image
    emit(
        f"{verb} {manifest.count} images {image.channels}x{image.height}x{image.width} "
        f"({image.bits} bit) in {_counted(manifest)}, {size / 1e6:.1f} MB, digest "
        f"{manifest.digest[:12]}: {uri}"
    )


def _counted(manifest: Manifest) -> str:
    number = len(manifest.shards)
    return f"{number} shard{'s' * (number != 1)}"
