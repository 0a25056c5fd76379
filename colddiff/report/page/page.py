"""The report page as one HTML file: it asks for nothing else, and equal runs give equal bytes."""

from __future__ import annotations

import base64
import hashlib
import importlib.resources
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined, Template
from markupsafe import Markup

from colddiff.evaluation.best import IMAGE_METRICS, is_distance
from colddiff.report.grids import number
from colddiff.report.page.contrast import Side, difference
from colddiff.report.page.images import PageImages, images_of
from colddiff.report.page.latex import to_latex
from colddiff.report.page.measurements import plots_of
from colddiff.report.page.plots import Plot
from colddiff.report.page.run import ReportedRun
from colddiff.report.page.table import (
    CSV_HEAD,
    Cell,
    ResultTable,
    cell_text,
    head_text,
    note_of,
    notes_below,
    published,
    to_csv,
    to_markdown,
)
from colddiff.report.page.told import MARK, is_of_others, mark_of, told_of
from colddiff.report.page.verdict import DIRECT
from colddiff.report.page.written import written_parts
from colddiff.report.tables import FLOOR

PARTS = "parts"
HEAD_BYTES = 4096
MOST_BYTES = 5_000_000
"""Of a page; images are left out until it is smaller."""
IMAGE_BYTES = 3_300_000
"""Of all pictures on a page, before base64 makes a third more of them."""


def report_page(
    runs: Sequence[ReportedRun],
    *,
    over_seed: bool = False,
    only: Sequence[str] = (),
    title: str = "",
    notes: Sequence[str] = (),
) -> str:
    """The page of one run, or of several side by side.

    Args:
        runs: at least one; of many, not all have their images and plots shown.
        over_seed: runs that differ in their seeds alone become one table with intervals.
        only: metrics to show, such as ``rmse``; all by default.
        title: heading; by default the ids of the runs.
        notes: what to know of their numbers together.
    """
    told = told_of(runs, over_seed=over_seed, only=only, title=title, notes=notes)
    sections, classes = _sections(told.shown, only)
    style = _part("page.css")
    script = _part("page.js")
    walks = [one[name] for one in sections for name in ("walk", "steps")]
    counts = sorted({len(walk["images"]) for walk in walks if walk})
    style += "".join(f".tiles.n{count}{{--n:{count}}}" for count in counts) + classes
    policy = (
        f"default-src 'none'; img-src data:; style-src {_hash(style)}; script-src {_hash(script)}; "
        "base-uri 'none'; form-action 'none'"
    )
    page = _template().render(
        policy=policy,
        mark=mark_of(runs),
        style=Markup(style),  # noqa: S704  # ours, and its hash is in the policy
        script=Markup(script),  # noqa: S704
        title=told.title,
        facts=told.facts,
        verdict=[*told.verdict, *told.without_images],
        paper=told.paper,
        problems=told.problems,
        compared=told.compared,
        tables=[_table(table, number) for number, table in enumerate(told.all_tables)],
        copies={
            "Markdown": to_markdown(told.all_tables),
            "LaTeX": to_latex(told.all_tables),
            "CSV": to_csv(told.tables),
        },
        written=written_parts(told.written),
        sections=sections,
        jobs=[job for job in told.jobs if job.attempts],
        several=len(runs) > 1,
        provenance=told.provenance,
    )
    return page + "\n"


@cache
def _template() -> Template:
    """Compiled once per process: a search or a study writes a page for each training."""
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    return environment.from_string(_part("page.html.j2"))


def is_ours(path: Path) -> bool:
    """Whether a file was written by ``colddiff report``."""
    if not path.is_file():
        return False
    head = _head(path)
    return MARK.encode() in head or head.startswith(CSV_HEAD.encode())


def replaces_another(path: Path, runs: Sequence[ReportedRun]) -> bool:
    """Whether a file is a report of other jobs than ``runs``."""
    return path.is_file() and is_of_others(_head(path).decode(errors="replace"), runs)


def _head(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(HEAD_BYTES)


def _sections(runs: Sequence[ReportedRun], only: Sequence[str]) -> tuple[list[dict[str, Any]], str]:
    """The images and plots of each job, captioned by it if there are several; rules of plots."""
    groups = [plots_of(run, only) for run in runs]
    more = sum(len(plot.svg) for job in groups[1:] for group in job for plot in group["plots"])
    # Of pictures base64 makes a third more, and plots of further jobs take from their room.
    most = max(0, IMAGE_BYTES - more * 3 // 4) // len(runs)
    names: dict[str, str] = {}
    sections = []
    for place, run in enumerate(runs):
        key = f"job{place + 1}-" if place else ""
        sections.append(
            {
                "key": key,
                "of": f": {run.name}" if len(runs) > 1 else "",
                "plots": _styled(groups[place], names, key),
                **_image_parts(images_of(run, most, key)),
            }
        )
    return sections, "".join(f".{name}{{{rule}}}" for rule, name in names.items())


def _image_parts(images: PageImages) -> dict[str, Any]:
    return {
        "sheets": images.sheets,
        "walk": images.walk,
        "chosen": images.chosen,
        "chosen_columns": images.columns,
        "judged_by": images.judged_by,
        "steps": images.steps,
        "pictures": images.pictures,
    }


def _table(table: ResultTable, number: int) -> dict[str, Any]:
    return {
        "id": number,
        "title": table.title,
        "why": table.why,
        "note": note_of(table),
        "notes": notes_below(table),
        "jobs": not any(row.column for row in table.rows),
        "heads": [head_text(metric) for metric in table.metrics],
        "rows": [
            {
                "label": row.label,
                "real": row.column == FLOOR,
                "cells": [_cell(metric, row.cells.get(metric)) for metric in table.metrics],
            }
            for row in table.rows
        ],
    }


def _cell(metric: str, cell: Cell | None) -> dict[str, Any] | None:
    if cell is None:
        return None
    return {
        "text": cell_text(metric, cell),
        "best": cell.best,
        "paper": published(cell),
        "proof": json.dumps(_proof(cell)),
    }


def _proof(cell: Cell) -> list[tuple[str, str]]:
    """Where a number comes from, as pairs of name and value."""
    path = cell.sources[0].path
    _, column, metric = path.split("/")
    found = [("number", path)]
    for source in cell.sources:
        proof = source.measured.provenance
        command = (
            f"colddiff submit evaluate checkpoint={source.run.id}@step={source.measured.step}"
            if source.run.verb == "train"
            else f"colddiff status {source.run.id}"
        )
        found += [
            ("run", source.run.id),
            ("value", repr(source.value)),
            ("step", str(source.measured.step)),
            ("n", str(proof.get("n", "unknown"))),
            ("reference images", str(proof.get("reference_sha256", "unknown"))),
            ("weights", str(proof.get("weights_sha256", source.run.result.get("weights", "-")))),
        ]
        if metric not in IMAGE_METRICS:  # which are of pixels
            weights = proof.get("feature_weights_sha256", "")
            found.append(("features", f"{proof.get('metric')} {weights}"))
        protocol = "protocol" if is_distance(metric) else "image_protocol"
        found += [("protocol", str(proof.get(protocol, ""))), ("again by", command)]
        own, direct = (Side((source.measured,), name) for name in (column, DIRECT))
        apart = difference(metric, own, direct) if column != DIRECT else None
        if apart is not None and apart.low is not None and apart.high is not None:
            found.append(
                (
                    "less that of direct",
                    f"{number(apart.value, 4, '+')}, 95 % interval {number(apart.low, 4, '+')} to "
                    f"{number(apart.high, 4, '+')} "
                    f"(paired bootstrap over {apart.n} images)",
                )
            )
    if published(cell):
        found.append(("the paper's number from", str(cell.sources[0].run.targets.get("source"))))
    if cell.interval.low is not None and cell.interval.high is not None:
        interval = f"{number(cell.interval.low, 5)} to {number(cell.interval.high, 5)}"
        found.append(("95 % interval over seeds", interval))
    return found


def _styled(
    groups: Sequence[Mapping[str, Any]], names: dict[str, str], key: str
) -> list[dict[str, Any]]:
    """The plots with classes in place of style attributes, which the policy would not allow.

    Adds the rules to ``names``; ``key`` begins the ids in them, which plots of other jobs have too.
    """

    def named(match: re.Match[str]) -> str:
        return f'class="{names.setdefault(match[1], f"p{len(names)}")}"'

    def own(plot: Plot) -> Plot:
        svg = re.sub(r'style="([^"]*)"', named, plot.svg)
        return replace(plot, svg=re.sub(r'(\bid="|\burl\(#|\bhref="#)', rf"\g<1>{key}", svg))

    return [{**group, "plots": [own(plot) for plot in group["plots"]]} for group in groups]


def _part(name: str) -> str:
    return (importlib.resources.files(__package__) / PARTS / name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
