"""PSNR and SSIM of restored images against the ground truth."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from colddiff.data.left_out import LeftOut
from colddiff.data.pil_images import Pixels
from colddiff.data.sources.image_folder import image_files
from colddiff.errors import DataError
from colddiff.evaluation.metrics import ImageErrors
from colddiff.restoration.marks import original_name
from colddiff.stores.local_store import LocalStore
from colddiff.stores.paths import nearest_folder
from colddiff.transforms import normalise

PROTOCOL = (
    "the written pixels against the ground truth, on the scale [0, 1]; psnr from each image's own "
    "mean squared error; ssim with an 11 px Gaussian window, omitted for smaller images"
)
FIELDS = ("psnr_db", "ssim", "input_psnr_db", "input_ssim")
SHOWN = (("psnr", "psnr_db", "input_psnr_db", 2, " dB"), ("ssim", "ssim", "input_ssim", 3, ""))
"""Of the line of means: name, field, field of the degraded images, decimals, unit."""
MEAN_ERROR = "of the mean error, as evaluations count it"
CSV_COLUMNS = ("image", "output", "severity", *FIELDS)


@dataclass(frozen=True, slots=True)
class Score:
    """PSNR in dB (None if the images are equal) and SSIM (None below 11 px)."""

    psnr_db: float | None
    ssim: float | None

    @classmethod
    def of(cls, pixels: Pixels, ground_truth: Pixels) -> Score:
        """The score of one image [H, W, C] against another of the same shape, 8 or 16 bit."""
        images = [(_image(side).double() + 1) / 2 for side in (pixels, ground_truth)]
        errors = ImageErrors.of(*images)
        psnr = None if math.isinf(errors.psnr) else errors.psnr
        return cls(psnr, errors.ssim)

    def lines(self) -> tuple[str, ...]:
        """PSNR and, if available, SSIM, as text."""
        psnr = "equal" if self.psnr_db is None else f"psnr {self.psnr_db:.2f} dB"
        return (psnr,) if self.ssim is None else (psnr, f"ssim {self.ssim:.4f}")

    def __str__(self) -> str:
        return "  ".join(self.lines())


@dataclass(frozen=True, slots=True)
class Comparison:
    """Scores of a restored image and of its input against the ground truth."""

    restored: Score
    degraded: Score

    def row(self) -> dict[str, float | None]:
        """The four scores by the names in ``FIELDS``."""
        scores = (self.restored, self.degraded)
        values = [value for score in scores for value in (score.psnr_db, score.ssim)]
        return dict(zip(FIELDS, values, strict=True))


class GroundTruth:
    """Ground-truth images in a folder, by name without suffix (``--reference``)."""

    def __init__(self, folder: Path) -> None:
        if not folder.is_dir():
            near = nearest_folder(folder)
            raise DataError(f"--reference: no such folder: {folder}{near}")
        self._folder = folder
        self._paths: dict[str, list[Path]] = {}
        self._whole: dict[str, Path] = {}
        """By name with its suffix, which tells an image from another beside it."""
        for item in image_files(LocalStore(folder), LeftOut()):
            name = str(Path(item.key).with_suffix(""))
            self._paths.setdefault(name, []).append(folder / item.key)
            self._whole[str(item.key)] = folder / item.key
        if not self._paths:
            raise DataError(f"--reference: {folder} has no images")

    def paths(self) -> list[Path]:
        """All files."""
        return [path for found in self._paths.values() for path in found]

    def path(self, name: str) -> Path:
        """The file for ``name``, or for what ``--degrade`` made it of; DataError without one."""
        found = self._paths.get(name) or self._paths.get(original_name(name), [])
        if not found and (whole := self._whole.get(original_name(name))):
            return whole
        if not found:
            raise DataError(f"--reference: {self._folder} has no image named {name}")
        if len(found) > 1:
            names = " and ".join(path.name for path in found)
            raise DataError(f"--reference: {self._folder} has {names}; keep one of them")
        return found[0]


def mean_scores(rows: Sequence[Mapping[str, float | None]]) -> dict[str, float]:
    """The mean of each field over the images that have it."""
    found: dict[str, list[float]] = {field: [] for field in FIELDS}
    for row in rows:
        for field, values in found.items():
            if (value := row[field]) is not None:
                values.append(value)
    return {field: sum(values) / len(values) for field, values in found.items() if values}


def mean_lines(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """A line of means over the images, for each severity that they were restored from."""
    severities = sorted({row["severity"] for row in rows})
    lines = []
    for severity in severities:
        scored = [row for row in rows if row["severity"] == severity]
        mean = mean_scores(scored)
        said = []
        for name, field, before, digits, unit in SHOWN:
            if field not in mean:
                continue
            beside = [f"{psnr_of_mean_error(scored):.2f} dB {MEAN_ERROR}"] * (
                field == "psnr_db" and len(scored) > 1
            )
            beside += [f"degraded {mean[before]:.{digits}f}"] * (before in mean)
            more = f" ({'; '.join(beside)})" if beside else ""
            said.append(f"{name} {mean[field]:.{digits}f}{unit}{_over(field, scored)}{more}")
        at = f" of severity {severity}" if len(severities) > 1 else ""
        lines.append(f"mean over {len(scored)}{at}: {', '.join(said) or 'equal'}")
    return lines


def worse_line(rows: Sequence[Mapping[str, Any]], *, degraded_here: bool) -> str | None:
    """A line where images of one severity were made worse than what was given."""
    severities = {row["severity"] for row in rows}
    mean = mean_scores(rows)
    lost = mean.get("input_psnr_db", -math.inf) - mean.get("psnr_db", math.inf)
    if len(severities) != 1 or not lost > 0:
        return None
    why = "they may be of a lower one, or degraded otherwise: --severity all shows each"
    if degraded_here:
        why = "this checkpoint does not restore such images"
    (severity,) = severities
    return f"worse than what was given, by {lost:.2f} dB of PSNR, from severity {severity}: {why}"


def psnr_of_mean_error(rows: Sequence[Mapping[str, Any]]) -> float:
    """PSNR in dB of the mean squared error over all images, of which at least one has an error.

    A few images of a large error lower it more than the mean of the images' own PSNR.
    """
    errors = [0.0 if row["psnr_db"] is None else 10 ** (-row["psnr_db"] / 10) for row in rows]
    return -10 * math.log10(sum(errors) / len(errors))


def _over(field: str, rows: Sequence[Mapping[str, Any]]) -> str:
    """How many images the mean of ``field`` is over, where some have none: equal, or too small."""
    counted = sum(row[field] is not None for row in rows)
    return "" if counted == len(rows) else f" over {counted}"


def scores_json(record: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> bytes:
    """``scores.json``: the settings, each image's scores and their means."""
    data = {**record, "protocol": PROTOCOL, "mean": mean_scores(rows), "images": list(rows)}
    return (json.dumps(data, indent=2) + "\n").encode()


def scores_csv(rows: Sequence[Mapping[str, Any]]) -> bytes:
    """``scores.csv``: one line per image and severity."""
    file = io.StringIO()
    writer = csv.DictWriter(file, CSV_COLUMNS, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    # A file name may be no text in UTF-8.
    return file.getvalue().encode(errors="backslashreplace")


def _image(pixels: Pixels) -> torch.Tensor:
    return normalise(torch.from_numpy(pixels.transpose(2, 0, 1).copy())).unsqueeze(0)
