"""`colddiff restore`: restores the user's images with a checkpoint, without a cluster."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from colddiff.cli.options import Json, Plugins, TrustedPlugins
from colddiff.cli.output import emit, emit_json, note, one_line
from colddiff.cli.progress import ProgressBar
from colddiff.data.open import open_second_set
from colddiff.errors import SpecError
from colddiff.machine.wording import counted

if TYPE_CHECKING:
    from colddiff.checkpoints.references import LoadedCheckpoint
    from colddiff.restoration import OmegaBeside, Restoration, Restored, RestoreSettings
    from colddiff.types import ImageShape

FAILED = 1


Sources = Annotated[
    list[str],
    typer.Argument(metavar="IMG|DIR...", help="Image files, folders or glob patterns."),
]
Checkpoint = Annotated[
    str,
    typer.Option(
        "--checkpoint",
        metavar="C",
        help="Job, checkpoint, export or mlflow:RUN_ID; with @last, @best, @step=N.",
    ),
]
Out = Annotated[str, typer.Option("--out", metavar="DIR", help="Folder for the results.")]
Severity = Annotated[
    str | None,
    typer.Option(metavar="T|all", help="Severity of the images; default: the checkpoint's T."),
]
OmegaFile = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="What is random in D: .json, .safetensors or a folder."),
]
Degrade = Annotated[
    bool, typer.Option("--degrade", help="The images are clean: degrade them first.")
]
SamplerName = Annotated[str, typer.Option(metavar="S", help="direct, naive, improved, ...")]
Severities = Annotated[
    str | None,
    typer.Option(
        metavar="N|LIST",
        help="Number of steps down to 0, or their severities: 20,13,7,3,0; default: all.",
    ),
]
Reference = Annotated[
    Path | None,
    typer.Option(metavar="DIR", help="Ground-truth images: report PSNR and SSIM of each."),
]
Seed = Annotated[int, typer.Option(help="Seed of what --degrade draws.")]
Fit = Annotated[
    bool, typer.Option("--fit", help="Crop the centre square and resize to the checkpoint.")
]
AnySize = Annotated[bool, typer.Option("--any-size", help="Restore images at their original size.")]
BatchSize = Annotated[int | None, typer.Option(metavar="N", help="Rows of each forward pass.")]
PrecisionOption = Annotated[
    str, typer.Option("--precision", metavar="P", help="Of the network's arithmetic: fp32, bf16.")
]
Strip = Annotated[
    bool,
    typer.Option(
        "--strip", help="Beside each result a picture NAME.strip.png: given, restored, original."
    ),
]
Overwrite = Annotated[
    bool, typer.Option("--overwrite", help="Replace existing results, and nothing else.")
]


def restore(
    sources: Sources,
    checkpoint: Checkpoint,
    out: Out,
    severity: Severity = None,
    omega: OmegaFile = None,
    degrade: Degrade = False,
    sampler: SamplerName = "improved",
    severities: Severities = None,
    reference: Reference = None,
    seed: Seed = 0,
    fit: Fit = False,
    any_size: AnySize = False,
    batch_size: BatchSize = None,
    precision: PrecisionOption = "fp32",
    strip: Strip = False,
    overwrite: Overwrite = False,
    plugin: Plugins = None,
    trust_plugin: TrustedPlugins = None,
    as_json: Json = False,
) -> None:
    """Restore images with a checkpoint. Into a folder of PNG files, whose paths are printed. Exit
    1: some failed.

    Ends with what was passed over and why, and mean scores. Files of yours are never replaced.
    """
    from colddiff.restoration import RestoreSettings
    from colddiff.restoration.outputs import output_folder
    from colddiff.spec.plugins import load_plugins

    settings = RestoreSettings(
        severity=_severity(severity),
        sampler=sampler,
        severities=_severities(severities),
        degrade=degrade,
        seed=seed,
        batch_size=batch_size,
        fit=fit,
        any_size=any_size,
        precision=precision,
        overwrite=overwrite,
        strip=strip,
    )
    _refuse_both(fit, any_size)
    load_plugins(plugin or ())
    trusted = tuple(trust_plugin or ())
    folder = output_folder(out)
    done, record, left_out = _run(sources, checkpoint, folder, settings, omega, reference, trusted)
    rows = _rows(done)
    scored = any("psnr_db" in row for row in rows)
    if scored:
        _write_scores(folder, record, rows)
    if as_json:
        emit_json({**record, "images": rows, **_counts(done), "left_out": left_out})
    else:
        _emit_lines(done)
    _conclude(done, rows, folder, left_out, degraded_here=settings.degrade)
    if any(item.state == "failed" for item in done):
        raise typer.Exit(FAILED)


def _refuse_both(fit: bool, any_size: bool) -> None:
    if fit and any_size:
        raise SpecError("--fit and --any-size are mutually exclusive: use one")


def _severity(text: str | None) -> Any:
    if text is None or text == "all":
        return text
    try:
        return int(text)
    except ValueError:
        raise SpecError(f"--severity: must be a whole number or all, got {text[:80]!r}") from None


def _severities(text: str | None) -> int | tuple[int, ...] | None:
    if text is None:
        return None
    try:
        if text.strip().isdigit():
            return int(text)
        return tuple(int(part) for part in text.strip(" []").split(","))
    except ValueError:
        raise SpecError(
            f"--severities: write a number of steps, or a list such as 20,13,7,3,0, got {text!r}"
        ) from None


def _run(
    sources: Sequence[str],
    checkpoint: str,
    out: Path,
    settings: RestoreSettings,
    omega: Path | None,
    reference: Path | None,
    trusted: Sequence[str],
) -> tuple[list[Restored], dict[str, Any], list[dict[str, Any]]]:
    import torch

    from colddiff.checkpoints.references import load_checkpoint
    from colddiff.data.left_out import LeftOut
    from colddiff.restoration import OmegaBeside, OmegaFiles, Restoration, found_images
    from colddiff.restoration.marks import degraded_severity
    from colddiff.restoration.outputs import refuse_source_as_out
    from colddiff.restoration.scores import GroundTruth

    # Check the cheap inputs first: loading a remote checkpoint can take long.
    refuse_source_as_out(sources, out)
    left_out = LeftOut()
    files = found_images(sources, out, left_out)
    if doubles := [file for file in files if file.has_double]:
        note(
            f"{len(doubles)} images have one name and two suffixes: their results have both, such "
            f"as {doubles[0].name}.png"
        )
    ground_truth = None if reference is None else GroundTruth(reference)
    given = None if omega is None else OmegaFiles(omega)
    # What `--degrade` drew lies beside the image that it made; it draws anew where it is asked to.
    beside = None if given or settings.degrade else OmegaBeside(files)
    loaded = load_checkpoint(checkpoint, trusted=trusted)
    D = loaded.degradation
    second = settings.degrade and D.omega_images
    progress = ProgressBar("restoring", f"steps of {counted(len(files), 'image')}")
    restoration = Restoration(
        loaded,
        settings,
        out,
        omega=given or (beside if beside and beside.found else None),
        ground_truth=ground_truth,
        images=open_second_set(D, loaded.spec.augment) if second else None,
        device="cuda" if torch.cuda.is_available() else "cpu",
        on_progress=progress,
    )
    _announce(loaded, settings, restoration, beside)
    if settings.guesses_severity(D) and any(degraded_severity(file.path) is None for file in files):
        note(
            "not sure how strongly the images were degraded? --severity all shows each from "
            "several severities side by side; T, which is taken, is the strongest"
        )
    try:
        done = restoration.run(files)
    finally:
        progress.close()
    if restoration.fitted:
        note(_fitted_line(restoration.fitted, loaded.spec.shape))
    passed_over = [*left_out.to_list(), *restoration.left_out.to_list()]
    return done, {"checkpoint_uri": loaded.address.uri, **restoration.record()}, passed_over


def _announce(
    loaded: LoadedCheckpoint,
    settings: RestoreSettings,
    restoration: Restoration,
    beside: OmegaBeside | None,
) -> None:
    """Says what is restored, from where, by what."""
    D = loaded.degradation
    at = "all severities" if settings.severity == "all" else f"severity {restoration.starts[0]}"
    size = f"{loaded.spec.shape} px"
    if settings.any_size:
        size = f"images at their own size (trained on {size}; other sizes were not measured)"
    note(
        f"{D.spec.kind} of {at} (T = {D.num_timesteps}), {settings.sampler}, checkpoint of step "
        f"{loaded.step}, {size}"
    )
    if beside and beside.found and settings.needs_omega(D):
        some = one_line(str(next(iter(beside.found.values()))))
        note(f"what is random in {D.spec.kind} is read beside the images, such as {some}")


def _fitted_line(fitted: Mapping[tuple[int, int], int], shape: ImageShape) -> str:
    """``3 images are written at 32x32 px (from 128x128): ...``, of the most frequent size."""
    count, others = sum(fitted.values()), len(fitted) - 1
    height, width = max(fitted, key=fitted.__getitem__)
    more = f" and {counted(others, 'other size')}" if others else ""
    return (
        f"{count} image{'s are' if count != 1 else ' is'} written at {shape.height}x{shape.width} "
        f"px (from {height}x{width}{more}): --fit crops and resizes to what the checkpoint takes"
    )


def _rows(done: Sequence[Restored]) -> list[dict[str, Any]]:
    """One row per image, or one per severity if results are compared with a ground truth."""
    rows: list[dict[str, Any]] = []
    for item in done:
        row = {"image": str(item.image), "output": str(item.output), "state": item.state}
        if item.error:
            row["error"] = item.error
        rows += [
            {**row, "severity": t, **comparison.row()} for t, comparison in item.comparisons.items()
        ] or [row]
    return rows


def _write_scores(out: Path, record: Mapping[str, Any], rows: Sequence[dict[str, Any]]) -> None:
    from colddiff.restoration.scores import scores_csv, scores_json
    from colddiff.stores.local_store import LocalStore

    scored = [row for row in rows if "psnr_db" in row]
    LocalStore(out).put("scores.csv", scores_csv(scored))
    LocalStore(out).put("scores.json", scores_json(record, scored))


def _emit_lines(done: Sequence[Restored]) -> None:
    for item in done:
        if item.state != "failed":
            emit(_line(item))


def _line(item: Restored) -> str:
    if len(item.comparisons) != 1:
        return one_line(str(item.output))
    (comparison,) = item.comparisons.values()
    return f"{one_line(str(item.output))}  {comparison.restored}  (before: {comparison.degraded})"


def _counts(done: Sequence[Restored]) -> dict[str, int]:
    states = [item.state for item in done]
    return {state: states.count(state) for state in ("restored", "skipped", "failed")}


def _conclude(
    done: Sequence[Restored],
    rows: Sequence[Mapping[str, Any]],
    out: Path,
    left_out: Sequence[Mapping[str, Any]],
    *,
    degraded_here: bool,
) -> None:
    from colddiff.data.left_out import left_out_lines
    from colddiff.restoration.scores import mean_lines, worse_line

    scored = [row for row in rows if "psnr_db" in row]
    counts = ", ".join(f"{count} {state}" for state, count in _counts(done).items() if count)
    note(f"{counts}{f'; scores in {out}/scores.csv and scores.json' if scored else ''}")
    for line in left_out_lines(left_out):
        note(f"left out: {one_line(line)}")
    for line in _failures(done):
        note(line)
    if worse := worse_line(scored, degraded_here=degraded_here):
        note(worse)
    # Last: after hundreds of lines of images it is what one looks for.
    for line in mean_lines(scored) if len({row["image"] for row in scored}) > 1 else ():
        note(line)


def _failures(done: Sequence[Restored]) -> list[str]:
    """A line for each way in which images failed: the error of the first, and how many did."""
    alike: dict[str, list[Restored]] = {}
    for item in done:
        if item.state == "failed":
            # Alike but for the file and its numbers, such as its size.
            what = re.sub(r"\d+", "0", item.error.replace(str(item.image), ""))
            alike.setdefault(what, []).append(item)
    return [
        f"failed: {one_line(items[0].error)}"
        + (f" (and {len(items) - 1} more images like it)" if len(items) > 1 else "")
        for items in alike.values()
    ]
