"""Evaluation sums as bytes, to send between processes: arrays and JSON, no pickle."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import Any

import numpy as np
import safetensors.numpy
from numpy.typing import NDArray

from colddiff.evaluation.by_severity import BySeverity
from colddiff.evaluation.image_scores import Candidate, ImageScores
from colddiff.evaluation.metrics import FeatureStatistics, ImageErrors
from colddiff.evaluation.set_comparison import SetSums
from colddiff.evaluation.sums import Column, EvaluationSums
from colddiff.evaluation.trajectory import Trajectory

Arrays = dict[str, NDArray[Any]]
FACTS = "facts"
MEASURED = ("removed", "steps", "restored", "states", "estimates", "spectra")
"""The arrays of a ``BySeverity``."""


def sums_to_bytes(sums: EvaluationSums | SetSums) -> bytes:
    """``sums`` as a safetensors file; ``sums_from_bytes`` restores them bit for bit."""
    arrays: Arrays = {}
    for side, half in enumerate(sums.halves):
        _put(arrays, f"half.{side}", half)
    facts: dict[str, Any] = {}
    if isinstance(sums, SetSums):
        _put(arrays, "samples", sums.samples)
        arrays |= {f"rows.{side}": rows for side, rows in enumerate(sums.rows)}
    else:
        facts["columns"] = {name: asdict(c.errors) for name, c in sums.columns.items()}
        for name, column in sums.columns.items():
            _put(arrays, f"column.{name}", column.features)
            arrays[f"mse.{name}"], arrays[f"ssim.{name}"] = column.scores.mse, column.scores.ssim
        facts["judged_by"] = sums.judged_by
        _put_pictures(arrays, facts, sums)
    arrays[FACTS] = np.frombuffer(json.dumps(facts).encode(), dtype=np.uint8)
    return safetensors.numpy.save({name: np.ascontiguousarray(a) for name, a in arrays.items()})


def sums_from_bytes(data: bytes) -> EvaluationSums | SetSums:
    """The inverse of ``sums_to_bytes``."""
    arrays: Arrays = safetensors.numpy.load(data)
    facts = json.loads(arrays[FACTS].tobytes())
    halves = (_take(arrays, "half.0"), _take(arrays, "half.1"))
    if "columns" not in facts:
        return SetSums(_take(arrays, "samples"), halves, (arrays["rows.0"], arrays["rows.1"]))
    columns = {}
    for name, errors in facts["columns"].items():
        features = _take(arrays, f"column.{name}")
        assert features is not None
        scores = ImageScores(arrays[f"mse.{name}"], arrays[f"ssim.{name}"])
        columns[name] = Column(ImageErrors(**errors), features, scores)
    return EvaluationSums(
        columns,
        halves,
        _pictures(arrays, "picture", columns),
        {
            name: Trajectory(
                tuple(path["severities"]),
                arrays[f"states.{name}"],
                arrays[f"estimates.{name}"],
                path["label"],
            )
            for name, path in facts["trajectories"].items()
        },
        _by_severity(arrays, facts["by_severity"]),
        tuple(
            Candidate(position, error, _pictures(arrays, f"candidate.{number}", columns))
            for number, (position, error) in enumerate(facts["candidates"])
        ),
        facts["judged_by"],
    )


def _put_pictures(arrays: Arrays, facts: dict[str, Any], sums: EvaluationSums) -> None:
    arrays |= {f"picture.{name}": images for name, images in sums.pictures.items()}
    facts["trajectories"] = {
        name: {"severities": path.severities, "label": path.label}
        for name, path in sums.trajectories.items()
    }
    for name, path in sums.trajectories.items():
        arrays |= {f"states.{name}": path.states, f"estimates.{name}": path.estimates}
    facts["candidates"] = [(one.position, one.error) for one in sums.candidates]
    for number, one in enumerate(sums.candidates):
        arrays |= {f"candidate.{number}.{name}": image for name, image in one.images.items()}
    facts["by_severity"] = None
    if (found := sums.by_severity) is not None:
        arrays |= {f"by_severity.{name}": getattr(found, name) for name in MEASURED}
        arrays |= {f"parameter.{name}": values for name, values in found.parameters.items()}
        facts["by_severity"] = {
            "num_images": found.num_images,
            "severities": found.severities,
            "spectrum_severities": found.spectrum_severities,
            "parameters": list(found.parameters),
        }


def _by_severity(arrays: Arrays, facts: Mapping[str, Any] | None) -> BySeverity | None:
    if facts is None:
        return None
    return BySeverity(
        num_images=facts["num_images"],
        severities=tuple(facts["severities"]),
        spectrum_severities=tuple(facts["spectrum_severities"]),
        parameters={name: arrays[f"parameter.{name}"] for name in facts["parameters"]},
        **{name: arrays[f"by_severity.{name}"] for name in MEASURED},
    )


def _pictures(arrays: Arrays, prefix: str, columns: Iterable[str]) -> dict[str, NDArray[Any]]:
    """Pictures by column, in the order of the columns of a table."""
    paths = {name: f"{prefix}.{name}" for name in ("original", *columns)}
    return {name: arrays[path] for name, path in paths.items() if path in arrays}


def _put(arrays: Arrays, name: str, statistics: FeatureStatistics | None) -> None:
    if statistics is not None:
        arrays[f"{name}.n"] = np.array([statistics.n], dtype=np.int64)
        arrays[f"{name}.mean"] = statistics.mean
        arrays[f"{name}.m2"] = statistics.m2


def _take(arrays: Mapping[str, NDArray[Any]], name: str) -> FeatureStatistics | None:
    if f"{name}.n" not in arrays:
        return None
    n = int(arrays[f"{name}.n"][0])
    return FeatureStatistics(n, arrays[f"{name}.mean"], arrays[f"{name}.m2"])
