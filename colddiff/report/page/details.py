"""What an evaluation leaves in STORAGE for its page: images, scores of each image, measurements."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy
from numpy.typing import NDArray

from colddiff.errors import DataError
from colddiff.evaluation.image_scores import WORST, Candidate
from colddiff.evaluation.result import Evaluation
from colddiff.report.page.sprites import sprite_sheet
from colddiff.spec.formats import LaterRecord, refuse_later

FORMAT = 1
FACTS = "facts"
DIRECT = "direct"
"""The rows of a sprite sheet without a sampler: D(x, t) and R(D(x, t), t)."""
NUMBERS = ("removed", "steps", "restored", "spectra")
Float64 = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class ShownImage:
    """A test image on the page: why it was chosen, and a sprite sheet of its columns.

    ``sheet`` has one row, original, degraded and restorations in the order of ``columns``.
    """

    role: str
    position: int
    rmse: float
    columns: tuple[str, ...]
    sheet: bytes


@dataclass(frozen=True, slots=True)
class Paths:
    """The way of one image through the severities, as a sprite sheet (``sprite_sheet``).

    Two rows for each of ``rows``, x_t and the estimate; a column for each of ``severities``,
    falling from T to 0.
    """

    position: int
    rows: tuple[str, ...]
    severities: tuple[int, ...]
    sheet: bytes


@dataclass(frozen=True, slots=True)
class Details:
    """The content of a details file.

    ``mse`` and ``ssim`` by column: of each image, float64 [n], ``ssim`` perhaps empty. ``facts``
    has the severities, counts and labels of ``numbers`` (see ``BySeverity``).
    """

    mse: Mapping[str, Float64]
    ssim: Mapping[str, Float64]
    shown: tuple[ShownImage, ...]
    paths: tuple[Paths, ...]
    facts: Mapping[str, Any]
    numbers: Mapping[str, Float64]
    parameters: Mapping[str, Float64]
    losses: tuple[tuple[int, float], ...]


def details_to_bytes(evaluation: Evaluation, losses: Sequence[tuple[int, float]] = ()) -> bytes:
    """The details of an evaluation as a safetensors file; ``losses``: (step, training loss)."""
    sums = evaluation.sums
    arrays: dict[str, NDArray[Any]] = {}
    for name, column in sums.columns.items():
        arrays |= {f"mse.{name}": column.scores.mse, f"ssim.{name}": column.scores.ssim}
    shown = _shown(evaluation)
    paths = _paths(evaluation)
    sheets = {f"shown.{number}": one.sheet for number, one in enumerate(shown)}
    sheets |= {f"path.{number}": one.sheet for number, one in enumerate(paths)}
    arrays |= {name: np.frombuffer(sheet, dtype=np.uint8) for name, sheet in sheets.items()}
    facts: dict[str, Any] = {
        "format": FORMAT,
        "judged_by": sums.judged_by,
        "shown": [[one.role, one.position, one.rmse, one.columns] for one in shown],
        "paths": [[one.position, one.rows, one.severities] for one in paths],
        "by_severity": None,
    }
    if (found := sums.by_severity) is not None:
        arrays |= {f"number.{name}": getattr(found, name) for name in NUMBERS}
        arrays |= {f"parameter.{name}": values for name, values in found.parameters.items()}
        facts["by_severity"] = {
            "num_images": found.num_images,
            "severities": found.severities,
            "spectrum_severities": found.spectrum_severities,
        }
    arrays["losses"] = np.array(losses, dtype=np.float64).reshape(-1, 2)
    arrays[FACTS] = np.frombuffer(json.dumps(facts, sort_keys=True).encode(), dtype=np.uint8)
    return safetensors.numpy.save({name: np.ascontiguousarray(a) for name, a in arrays.items()})


def details_from_bytes(data: bytes) -> Details:
    """The inverse of ``details_to_bytes``; DataError for anything else."""
    try:
        arrays: dict[str, NDArray[Any]] = safetensors.numpy.load(data)
        facts = _facts(arrays)
        return Details(
            _named(arrays, "mse"),
            _named(arrays, "ssim"),
            tuple(
                ShownImage(
                    role, position, rmse, tuple(columns), arrays[f"shown.{number}"].tobytes()
                )
                for number, (role, position, rmse, columns) in enumerate(facts["shown"])
            ),
            tuple(
                Paths(position, tuple(rows), tuple(severities), arrays[f"path.{number}"].tobytes())
                for number, (position, rows, severities) in enumerate(facts["paths"])
            ),
            {"judged_by": facts["judged_by"], **(facts["by_severity"] or {})},
            _named(arrays, "number"),
            _named(arrays, "parameter"),
            tuple((int(step), float(loss)) for step, loss in arrays["losses"]),
        )
    except LaterRecord as error:
        raise DataError(str(error)) from None
    except (safetensors.SafetensorError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"not the details of an evaluation ({type(error).__name__})") from None


def _facts(arrays: Mapping[str, NDArray[Any]]) -> dict[str, Any]:
    facts: dict[str, Any] = json.loads(arrays[FACTS].tobytes())
    refuse_later(facts, FORMAT)
    return facts


def _named(arrays: Mapping[str, NDArray[Any]], prefix: str) -> dict[str, Float64]:
    begin = f"{prefix}."
    return {
        name.removeprefix(begin): array for name, array in arrays.items() if name.startswith(begin)
    }


def _shown(evaluation: Evaluation) -> list[ShownImage]:
    """The first images, those with the largest errors and the one of median error."""
    sums = evaluation.sums
    mse = sums.columns[sums.judged_by].scores.mse
    found = []
    for row in range(len(next(iter(evaluation.pictures.values()), ()))):
        images = {name: column[row] for name, column in evaluation.pictures.items()}
        found.append(_one("first", row, float(mse[row]), images))
    worst = sorted(sums.candidates, key=lambda one: (-one.error, one.position))[:WORST]
    found += [_candidate("worst", one) for one in worst]
    middle = evaluation.median_image
    return found + ([_candidate("median", middle)] if middle else [])


def _candidate(role: str, one: Candidate) -> ShownImage:
    return _one(role, one.position, one.error, one.images)


def _one(role: str, position: int, mse: float, images: Mapping[str, Any]) -> ShownImage:
    sheet = sprite_sheet(np.stack(list(images.values()))[None])
    return ShownImage(role, position, float(np.sqrt(mse)), tuple(images), sheet)


def _paths(evaluation: Evaluation) -> list[Paths]:
    measured = evaluation.sums.by_severity
    if measured is None:
        return []
    severities = measured.severities
    walks = {
        name: path
        for name, path in evaluation.sums.trajectories.items()
        if set(severities) <= set(path.severities)  # not that of a single step
    }
    rows = [measured.states, measured.estimates]
    for path in walks.values():
        at = [path.severities.index(t) for t in severities]
        rows += [path.states[at], path.estimates[at]]
    cells = np.stack(rows)  # [rows, S, k, C, H, W]
    return [
        Paths(image, (DIRECT, *walks), severities, sprite_sheet(cells[:, :, image]))
        for image in range(cells.shape[2])
    ]
