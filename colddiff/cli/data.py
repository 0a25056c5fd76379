"""`colddiff data`: packs images into shards, indexes tars, verifies packed sets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from colddiff.cli.data_show import Uri, duplicates, show
from colddiff.cli.options import Json
from colddiff.cli.output import emit, emit_json, note, one_line
from colddiff.cli.progress import ProgressBar
from colddiff.data.open import pack_source, read_manifest
from colddiff.errors import SpecError
from colddiff.machine.wording import counted
from colddiff.stores.open import absolute

if TYPE_CHECKING:
    from colddiff.ports import Manifest

app = typer.Typer(no_args_is_help=True, help="Pack, index and verify image sets.")

Source = Annotated[
    str,
    typer.Argument(
        metavar="SOURCE",
        help="digits, mnist:DIR, cifar10:DIR, folder:DIR, folder:s3://..., webdataset:URI.",
    ),
]
Out = Annotated[str, typer.Option("--out", metavar="URI", help="A folder, or s3://bucket/prefix.")]
SPLITS = (None, "train", "test", "both")
Split = Annotated[
    str | None,
    typer.Option(
        metavar="train|test|both",
        help="The official split, if any, else by --holdout; both: to URI/train and URI/test.",
    ),
]
ImageSize = Annotated[
    int | None,
    typer.Option(metavar="N", help="Side in px: centre crop, then bilinear resize."),
]
Channels = Annotated[
    int | None, typer.Option(metavar="1|3", help="Default: 3 if any image is in colour.")
]
Bits = Annotated[
    int | None,
    typer.Option(
        metavar="8|16",
        help="Bit depth to store; default: 8. Given as 8, converts 16-bit images to it.",
    ),
]
ValueRange = Annotated[
    str | None,
    typer.Option(
        "--range",
        metavar="LO,HI",
        help="Physical values of black and white: floating images, DICOM and NIfTI are mapped "
        "from them; of others they are only recorded.",
    ),
]
Holdout = Annotated[
    float | None,
    typer.Option(
        metavar="F", help="Fraction of images in the test split. Without --split, packs both."
    ),
]
GroupBy = Annotated[
    str | None,
    typer.Option(metavar="REGEX", help="Images whose names have the same match stay in one split."),
]
Limit = Annotated[
    int | None, typer.Option(metavar="N", help="Maximum number of images, of both splits together.")
]
Frames = Annotated[
    str,
    typer.Option(
        metavar="all|first", help="Of a file with several images, such as a TIFF or a volume."
    ),
]
ShardSize = Annotated[int, typer.Option(metavar="N", help="Images per shard.")]
SkipBroken = Annotated[
    bool,
    typer.Option("--skip-broken", help="Leave out images that cannot be decoded, and list them."),
]
Threads = Annotated[
    int | None,
    typer.Option(
        metavar="N", min=1, max=1024, help="Number of threads; does not affect the result."
    ),
]


@app.command()
def pack(
    source: Source,
    out: Out,
    split: Split = None,
    image_size: ImageSize = None,
    channels: Channels = None,
    bits: Bits = None,
    value_range: ValueRange = None,
    holdout: Holdout = None,
    group_by: GroupBy = None,
    limit: Limit = None,
    shard_size: ShardSize = 1000,
    frames: Frames = "all",
    skip_broken: SkipBroken = False,
    workers: Threads = None,
    as_json: Json = False,
) -> None:
    """Pack images into PNG tars with a manifest. Run again to resume after an interruption.

    With --holdout and no --split (or --split both), training images go to URI/train and test
    images to URI/test. A folder may hold PNG, JPEG, WebP, BMP, TIFF and PPM files, and files of
    many images: .npy, .npz, TIFF of several pages, DICOM, NIfTI, each image of which is packed.
    Ends with what was left out and why, which the manifest lists too.
    """
    settings: dict[str, Any] = {
        "image_size": image_size,
        "channels": channels,
        **({} if bits is None else {"bits": bits}),  # 8 by default converts nothing
        "range": _range(value_range),
        "holdout": holdout,
        "group_by": group_by,
        "limit": limit,
        "shard_size": shard_size,
        "frames": frames,
    }
    progress, altered = ProgressBar("packed", "images"), list[str]()
    how: dict[str, Any] = {
        "on_progress": progress,
        "on_altered": altered.append,
        "workers": workers,
        "skip_broken": skip_broken,
    }
    try:
        found = _packed(source, out, split, how, settings)
    except SpecError as error:
        raise _by_option(error) from None
    finally:
        progress.close()
    for place, (_, fresh) in found.items():
        if not fresh:
            note(f"{place} is already packed with these settings")
    for line in altered:
        note(line)
    _report_packed({absolute(place): manifest for place, (manifest, _) in found.items()}, as_json)


def _packed(
    source: str, out: str, split: str | None, how: dict[str, Any], settings: dict[str, Any]
) -> dict[str, tuple[Manifest, bool]]:
    """By place, what was packed there and whether that was now."""
    if split not in SPLITS:
        raise SpecError(f"--split is train, test or both, got {split!r}")
    if split == "both" or (split is None and settings["holdout"] is not None):
        from colddiff.data.both_splits import pack_splits

        both = pack_splits(source, out, **how, **settings)
        return {f"{out.rstrip('/')}/{part}": packed for part, packed in both.items()}
    return {out: pack_source(source, out, **how, **settings, split=split)}


def _report_packed(sets: Mapping[str, Manifest], as_json: bool) -> None:
    """Tells about one set, or about both splits and how many images went where."""
    if len(sets) == 1:
        ((uri, manifest),) = sets.items()
        _report("packed", manifest, uri, as_json)
        return
    splits = {uri.rpartition("/")[2]: (uri, manifest) for uri, manifest in sets.items()}
    if as_json:
        emit_json({split: as_data(manifest, uri) for split, (uri, manifest) in splits.items()})
        return
    for uri, manifest in sets.items():
        emit(f"packed {summary_line(manifest, uri)}")
    for line in _left_out_of_both({split: found for split, (_, found) in splits.items()}):
        note(f"left out{line}")
    counts = " and ".join(f"{found.count} to {split}" for split, (_, found) in splits.items())
    train, test = sets
    note(f"{counts}; next: colddiff submit train JOB.yaml data={train} test_data={test}")


def _left_out_of_both(sets: Mapping[str, Manifest]) -> list[str]:
    """What was left out of the source once, and then of each split what only that has."""
    from colddiff.data.manifest import left_out_of

    found = {split: left_out_of(manifest) for split, manifest in sets.items()}
    shared = [line for line in found["train"] if line in found["test"]]
    lines = [f": {one_line(line)}" for line in shared]
    for split, own in found.items():
        lines += [f" of {split}: {one_line(line)}" for line in own if line not in shared]
    return lines


def _by_option(error: SpecError) -> SpecError:
    """The error with the names of options instead of those of fields."""
    from colddiff.data.pack_settings import PackSettings

    options = {name: f"--{name.replace('_', '-')}" for name in PackSettings.model_fields}
    return SpecError([(options.get(path, path), what) for path, what in error.problems])


app.command()(show)


@app.command()
def index(uri: Uri, as_json: Json = False) -> None:
    """Index webdataset tars of others. Of PNG or JPEG images of one size; a manifest is written
    beside them.

    A manifest that is there is kept, unless indexing wrote it.
    """
    from colddiff.data import packed_sets as datasets

    progress = ProgressBar("indexed", "shards")
    try:
        manifest = datasets.index_shards(uri, progress)
    finally:
        progress.close()
    _report("indexed", manifest, absolute(uri), as_json)


@app.command()
def join(uri: Uri, as_json: Json = False) -> None:
    """Make one set of several packed sets. Those in the folders of URI, which all stay as they are.

    They follow each other by name. Run it again when parts were added or packed anew.
    """
    from colddiff.data import packed_sets as datasets

    progress = ProgressBar("joined", "parts")
    try:
        manifest = datasets.join_sets(uri, progress)
    finally:
        progress.close()
    _report("joined", manifest, absolute(uri), as_json)


@app.command()
def verify(
    uri: Uri,
    sample: Annotated[
        int | None,
        typer.Option("--sample", metavar="N", min=1, help="Only N shards, drawn with --seed."),
    ] = None,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Another one, other shards.")] = 0,
    as_json: Json = False,
) -> None:
    """Verify every shard against the manifest. Exit 1: some do not match; they are listed.

    Of a folder with the splits train and test, both are verified.
    """
    from colddiff.data.manifest import splits_in
    from colddiff.stores.open import open_store

    splits = splits_in(open_store(uri))
    within = [f"{split}/" for split in splits] or [""]
    found = [_verified(uri, place, sample, seed, as_json) for place in within]
    if as_json:
        emit_json(dict(zip(splits, found, strict=True)) if splits else found[0])
    if any(one["bad"] for one in found):
        raise typer.Exit(1)


def _verified(
    parent: str, within: str, sample: int | None, seed: int, as_json: bool
) -> dict[str, Any]:
    """One set, told as lines unless ``as_json``; JSON-ready. ``within``: ``train/``, or empty."""
    from colddiff.data import packed_sets as datasets

    uri = f"{parent.rstrip('/')}/{within[:-1]}" if within else parent
    progress = ProgressBar("verified", "bytes")
    try:
        manifest = read_manifest(uri)
        if sample is None:
            bad = datasets.verify_shards(uri, progress)
        else:
            bad = datasets.verify_sample(uri, sample, seed, progress)
    finally:
        progress.close()
    count = min(sample or len(manifest.shards), len(manifest.shards))
    drawn = f"{count} drawn of " if count < len(manifest.shards) else ""
    of = f"{drawn}{_counted(manifest)}"
    if not as_json:
        for shard in bad:
            emit(f"{within}{shard.key}: {shard.problem}")
        if not bad:
            emit(f"verified {of} against the manifest {manifest.digest[:12]}: {absolute(uri)}")
    if bad:
        note(f"{len(bad)} of {of} bad in {absolute(uri)}; pack the data again")
    return {
        "uri": absolute(uri),
        "digest": manifest.digest,
        "shards": len(manifest.shards),
        "verified": count,
        "bad": [asdict(shard) for shard in bad],
    }


app.command()(duplicates)


def _range(text: str | None) -> tuple[float, float] | None:
    if text is None:
        return None
    try:
        low, high = (float(part) for part in text.split(","))
    except ValueError:
        raise SpecError(f"--range {text!r}: must be two numbers, such as -1000,3000") from None
    return low, high


def as_data(manifest: Manifest, uri: str) -> dict[str, object]:
    """A packed set, JSON-ready."""
    from colddiff.data.manifests.paged import shard_bytes

    return {
        "uri": uri,
        "digest": manifest.digest,
        "count": manifest.count,
        "image": asdict(manifest.image),
        "shards": len(manifest.shards),
        "bytes": shard_bytes(manifest.shards),
        "classes": list(manifest.classes),
        "left_out": manifest.settings.get("left_out", []),
        "skipped": manifest.settings.get("skipped", []),
    }


def _report(verb: str, manifest: Manifest, uri: str, as_json: bool) -> None:
    from colddiff.data.manifest import left_out_of

    if as_json:
        emit_json(as_data(manifest, uri))
        return
    emit(f"{verb} {summary_line(manifest, uri)}")
    for line in left_out_of(manifest):
        note(f"left out: {one_line(line)}")


def summary_line(manifest: Manifest, uri: str) -> str:
    """A packed set in a line: number, format, shards, size, digest, address."""
    from colddiff.data.manifests.paged import shard_bytes

    image, size = manifest.image, shard_bytes(manifest.shards)
    return (
        f"{counted(manifest.count, 'image')} "
        f"{image.channels}x{image.height}x{image.width} "
        f"({image.bits} bit) in {_counted(manifest)}, {size / 1e6:.1f} MB, digest "
        f"{manifest.digest[:12]}: {uri}"
    )


def _counted(manifest: Manifest) -> str:
    return counted(len(manifest.shards), "shard")
