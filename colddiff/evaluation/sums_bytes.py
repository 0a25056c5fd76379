"""Evaluation sums as bytes, to send between processes: arrays and JSON, no pickle."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np
import safetensors.numpy
from numpy.typing import NDArray

from colddiff.evaluation.metrics import FeatureStatistics, ImageErrors
from colddiff.evaluation.set_comparison import SetSums
from colddiff.evaluation.sums import Column, EvaluationSums
from colddiff.evaluation.trajectory import Trajectory

Arrays = dict[str, NDArray[Any]]
FACTS = "facts"


def sums_to_bytes(sums: EvaluationSums | SetSums) -> bytes:
    """``sums`` as a safetensors file; ``sums_from_bytes`` restores them bit for bit."""
    arrays: Arrays = {}
    for side, half in enumerate(sums.halves):
        _put(arrays, f"half.{side}", half)
    facts: dict[str, Any] = {}
    if isinstance(sums, SetSums):
        _put(arrays, "samples", sums.samples)
    else:
        facts["columns"] = {name: asdict(c.errors) for name, c in sums.columns.items()}
        for name, column in sums.columns.items():
            _put(arrays, f"column.{name}", column.features)
        arrays |= {f"picture.{name}": images for name, images in sums.pictures.items()}
        if (path := sums.trajectory) is not None:
            facts |= {"severities": path.severities, "label": path.label}
            arrays |= {"states": path.states, "estimates": path.estimates}
    arrays[FACTS] = np.frombuffer(json.dumps(facts).encode(), dtype=np.uint8)
    return safetensors.numpy.save({name: np.ascontiguousarray(a) for name, a in arrays.items()})


def sums_from_bytes(data: bytes) -> EvaluationSums | SetSums:
    """The inverse of ``sums_to_bytes``."""
    arrays: Arrays = safetensors.numpy.load(data)
    facts = json.loads(arrays[FACTS].tobytes())
    halves = (_take(arrays, "half.0"), _take(arrays, "half.1"))
    if "columns" not in facts:
        return SetSums(_take(arrays, "samples"), halves)
    columns = {}
    for name, errors in facts["columns"].items():
        features = _take(arrays, f"column.{name}")
        assert features is not None
        columns[name] = Column(ImageErrors(**errors), features)
    path = None
    if "severities" in facts:
        path = Trajectory(
            tuple(facts["severities"]), arrays["states"], arrays["estimates"], facts["label"]
        )
    pictures = {
        name.removeprefix("picture."): images
        for name, images in arrays.items()
        if name.startswith("picture.")
    }
    order = [name for name in ("original", *columns) if name in pictures]
    return EvaluationSums(columns, halves, {name: pictures[name] for name in order}, path)


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
