"""The images of a report page: paths over severities and steps, and images chosen by rule."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

import numpy as np

from colddiff.report.page.details import DIRECT, Details, Paths
from colddiff.report.page.run import Measured, ReportedRun
from colddiff.report.page.sprites import last_column, sprite_sheet
from colddiff.samplers import column_labels

STATE, ESTIMATE = "x_t", "R(x_t, t)"
TYPES = {".png": "image/png", ".gif": "image/gif"}
MOST_PICTURES = 24


@dataclass(slots=True)
class PageImages:
    """What the template shows; empty parts are left out. See ``parts/page.html.j2``.

    ``key`` begins the ids of its sheets, as a page may show the images of several jobs.
    """

    key: str = ""
    sheets: list[dict[str, Any]] = field(default_factory=list)
    walk: dict[str, Any] | None = None
    steps: dict[str, Any] | None = None
    chosen: list[dict[str, Any]] = field(default_factory=list)
    columns: list[str] = field(default_factory=list)
    judged_by: str = ""
    pictures: list[dict[str, Any]] = field(default_factory=list)

    def add_sheet(self, name: str, sheet: bytes, rows: int, columns: int) -> None:
        """Adds a sheet of ``rows`` x ``columns`` cells under an id."""
        data = base64.b64encode(sheet).decode()
        self.sheets.append({"id": name, "rows": rows, "columns": columns, "data": data})


def images_of(run: ReportedRun, most_bytes: int, key: str = "") -> PageImages:
    """The images of a run, of ``most_bytes`` together at most: later ones are left out first."""
    found = PageImages(key)
    details = run.last.details if run.last else None
    if details is not None:
        spent = _choose(found, details)
        spent += _steps(found, run.evaluations)
        _walk(found, details, most_bytes - spent)
    else:
        _pictures(found, run, most_bytes)
    return found


def _choose(found: PageImages, details: Details) -> int:
    if not details.shown:
        return 0
    columns = details.shown[0].columns
    found.columns = list(column_labels(columns).values())
    judge = details.facts["judged_by"]
    found.judged_by = f"root mean squared error of {column_labels([judge])[judge]}"
    for number, one in enumerate(details.shown):
        name = f"{found.key}chosen-{number}"
        label = f"{one.role}: image {one.position}, RMSE {one.rmse:.3f}"
        alt = f"test image {one.position}: {', '.join(found.columns)}"
        data = base64.b64encode(one.sheet).decode()
        found.chosen.append({"label": label, "alt": alt, "data": data, "sheet": name})
    return sum(len(one.sheet) for one in details.shown)


def _walk(found: PageImages, details: Details, most_bytes: int) -> None:
    paths: list[Paths] = []
    for path in details.paths:
        most_bytes -= len(path.sheet)
        if most_bytes < 0:
            break
        paths.append(path)
    if not paths:
        return
    first = paths[0]
    images = []
    for path in paths:
        name = f"{found.key}path-{path.position}"
        found.add_sheet(name, path.sheet, 2 * len(path.rows), len(path.severities))
        images.append({"sheet": name, "position": path.position})
    found.walk = {
        "labels": json.dumps([f"t = {t}" for t in first.severities]),
        "last": len(first.severities) - 1,
        "rows": _rows(first),
        "images": images,
    }


def _rows(path: Paths) -> list[dict[str, Any]]:
    labels = {DIRECT: ("D(x, t)", "one step from D(x, t)")}
    for name, label in column_labels(path.rows).items():
        if name != DIRECT:
            labels[name] = (f"{STATE}, {label}", f"{ESTIMATE}, {label}")
    return [
        {"label": label, "number": 2 * number + half}
        for number, name in enumerate(path.rows)
        for half, label in enumerate(labels[name])
    ]


def _steps(found: PageImages, evaluations: Sequence[Measured]) -> int:
    """Restorations of the first images at each evaluated step, if there are several."""
    kept = [one for one in evaluations if one.details is not None and one.details.paths]
    if len(kept) < 2:
        return 0
    last = kept[-1].details
    assert last is not None
    like = [
        one
        for one in kept
        if one.details is not None
        and [(p.position, p.rows, p.severities) for p in one.details.paths]
        == [(p.position, p.rows, p.severities) for p in last.paths]
    ]
    walks = [name for name in last.paths[0].rows if name != DIRECT]
    if len(like) < 2 or not walks:
        return 0
    spent, images = 0, []
    for number, path in enumerate(last.paths):
        columns = []
        for one in like:
            assert one.details is not None
            sheet = one.details.paths[number].sheet
            cells = last_column(sheet, 2 * len(path.rows), len(path.severities))
            # Of each sampler the state at severity 0; the first row is the original.
            columns.append(np.stack([cells[2 * (i + 1)] for i in range(len(walks))]))
        sheet = sprite_sheet(np.stack(columns, axis=1))
        spent += len(sheet)
        name = f"{found.key}steps-{path.position}"
        found.add_sheet(name, sheet, len(walks), len(like))
        images.append({"sheet": name, "position": path.position})
    labels = column_labels(walks)
    found.steps = {
        "labels": json.dumps([f"step {one.step}" for one in like]),
        "last": len(like) - 1,
        "rows": [{"label": labels[name], "number": row} for row, name in enumerate(walks)],
        "images": images,
    }
    return spent


def _pictures(found: PageImages, run: ReportedRun, most_bytes: int) -> None:
    for picture in run.pictures[:MOST_PICTURES]:
        kind = TYPES.get(PurePosixPath(picture.name).suffix)
        most_bytes -= len(picture.data)
        if kind is None or most_bytes < 0:
            continue
        found.pictures.append(
            {
                "name": picture.name,
                "type": kind,
                "alt": f"{PurePosixPath(picture.name).stem} of {run.id}".replace("_", " "),
                "data": base64.b64encode(picture.data).decode(),
            }
        )
