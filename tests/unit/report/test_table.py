"""Tables of runs: like with like, bold only where intervals part, and three ways to copy them."""

from __future__ import annotations

import csv
import io
import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from colddiff.jobs.pages.read import read_run
from colddiff.report.grids import number
from colddiff.report.page.latex import to_latex
from colddiff.report.page.run import ReportedRun
from colddiff.report.page.table import (
    ResultTable,
    _of_all,
    note_of,
    tables_of,
    to_csv,
    to_markdown,
)
from colddiff.report.page.verdict import verdict
from tests.unit.report.made_runs import train_job


def runs(storage: Path, seeds: int = 3) -> list[ReportedRun]:
    return [
        read_run(train_job(storage, f"train-blocks-0000000{seed}", seed=seed))
        for seed in range(seeds)
    ]


def cell_of(table: ResultTable, column: str, metric: str) -> tuple[float, bool]:
    (row,) = [row for row in table.rows if row.column == column]
    return row.cells[metric].interval.value, row.cells[metric].best


def test_the_columns_of_the_paper_with_what_is_real_last(tmp_path: Path) -> None:
    (table,) = tables_of(runs(tmp_path, 1))
    labels = [row.label for row in table.rows]
    algorithms = ["Algorithm 1 (naive)", "Algorithm 2 (improved)"]
    assert labels == ["degraded", "direct", *algorithms, "real against real"]
    assert table.metrics == ("fd_blocks", "ssim", "rmse", "psnr")
    last = table.measured[0].metrics
    assert cell_of(table, "sampled", "rmse") == (last["eval/sampled/rmse"], False)


def test_a_table_of_one_training_says_of_which_step_it_is(tmp_path: Path) -> None:
    found = runs(tmp_path, 2)
    assert note_of(tables_of(found[:1])[0]).startswith("step 20, n = 23 images")
    run = replace(found[0], result={"best": {"step": 10}})
    told = f"step 20 (the best is step 10: `{run.id}@best`), n = 23 images"
    assert note_of(tables_of([run])[0]).startswith(told)
    assert note_of(tables_of([replace(run, step=10)])[0]).startswith("step 10, n = ")
    assert note_of(tables_of(found, over_seed=True)[0]).startswith("n = 23 images")


def test_runs_that_differ_in_their_seed_become_one_table(tmp_path: Path) -> None:
    found = runs(tmp_path)
    assert len(tables_of(found)) == 3
    (table,) = tables_of(found, over_seed=True)
    values = [run.evaluations[-1].metrics["eval/direct/rmse"] for run in found]
    assert cell_of(table, "direct", "rmse")[0] == pytest.approx(sum(values) / 3)
    assert "3 seeds" in table.title


def test_bold_where_the_best_parts_from_all_others(tmp_path: Path) -> None:
    (table,) = tables_of(runs(tmp_path), over_seed=True)
    for metric in table.metrics:
        cells = {
            row.column: row.cells[metric]
            for row in table.rows
            if metric in row.cells and row.column not in ("degraded", "floor")
        }
        bold = [name for name, cell in cells.items() if cell.best]
        assert len(bold) <= 1
        for name in bold:
            others = [cell for other, cell in cells.items() if other != name]
            assert all(cells[name].interval.parts_from(cell.interval) for cell in others)
    assert any(cell.best for row in table.rows for cell in row.cells.values())
    # The degraded images may score best, and are no restoration.
    assert not any(cell.best for cell in table.rows[0].cells.values())


def test_how_a_training_was_run_parts_no_seeds(tmp_path: Path) -> None:
    """A study counts what was trained before it; `tracking` says that the study ran the others."""
    of_study: dict[str, Any] = {
        "tracking": {"parent": "study-a-01234567", "tags": {"colddiff.study": "a"}}
    }
    alone = read_run(train_job(tmp_path, "train-blocks-0000000a", seed=0))
    member = read_run(
        train_job(tmp_path, "train-blocks-0000000b", seed=1, workers=2, log_every=7, **of_study)
    )
    (table,) = tables_of([alone, member], over_seed=True)
    assert table.title.endswith(": 2 seeds")
    longer = read_run(train_job(tmp_path, "train-blocks-0000000c", seed=1, num_steps=40))
    assert len(tables_of([alone, longer], over_seed=True)) == 2


def test_unlike_numbers_never_share_a_table(tmp_path: Path) -> None:
    alike = read_run(train_job(tmp_path, "train-blocks-0000000a", seed=0))
    fewer = read_run(train_job(tmp_path, "train-blocks-0000000b", seed=1, count=17))
    tables = tables_of([alike, fewer], over_seed=True)
    assert len(tables) == 2
    assert tables[0].why == ""
    assert tables[1].why.startswith("not to be compared with the table above")
    assert "number of images (23 there, 17 here)" in tables[1].why


def test_copies_hold_the_numbers_that_are_shown(tmp_path: Path) -> None:
    tables = tables_of(runs(tmp_path), over_seed=True, only=["rmse", "fd_blocks"])
    markdown, latex = to_markdown(tables), to_latex(tables)
    value = cell_of(tables[0], "direct", "rmse")[0]
    assert f"{value:.4f} ±" in markdown
    assert f"{value:.4f} $\\pm$" in latex
    assert r"fd\_blocks $\downarrow$" in latex
    assert latex.count(r"\\") == 1 + len(tables[0].rows)
    rows = list(csv.DictReader(io.StringIO(to_csv(tables))))
    assert len(rows) == 3 * (4 * 2 + 1)
    assert {row["run"] for row in rows} == {f"train-blocks-0000000{seed}" for seed in range(3)}
    assert all(float(row["value"]) > 0 for row in rows)


def test_no_number_is_in_scientific_notation(tmp_path: Path) -> None:
    found = runs(tmp_path)
    for n, run in enumerate(found):
        assert run.last is not None
        metrics = {**run.last.metrics, "eval/direct/fd_blocks": 300.0 + 90 * n}
        found[n] = replace(run, evaluations=(replace(run.last, metrics=metrics),))
    (table,) = tables_of(found, over_seed=True)
    for text, joint in ((to_latex([table]), " $\\pm$ "), (to_markdown([table]), " ± ")):
        assert f"390{joint}224" in text
        assert not re.search(r"\de[+-]\d", text)
    values = ((1234.5, 3), (-1234.5, 3), (114.2, 2), (99.7, 2), (0.00002, 3), (12.34, 3))
    written = ["+1234", "-1234", "+114", "+100", "+0.00002", "+12.3"]
    assert [number(value, digits, "+") for value, digits in values] == written


def test_the_verdict_says_how_sure_it_is(tmp_path: Path) -> None:
    (one,) = runs(tmp_path, 1)
    told = verdict(one, tables_of([one])[0])
    assert told[0].startswith(
        "Of blur at severity 4, the restorer after step 20 takes the RMSE from"
    )
    assert "one seed" in told[1]
    assert "over 23 images" in told[1]
    assert len(told) == 3
    assert "undecided in fd_blocks" in told[1]  # of one training, and no value per image
    assert one.last is not None
    assert isinstance(one.last.provenance, dict)
    one.last.provenance["misfit"] = "it compares something else"
    assert "fd_blocks" not in verdict(one)[1]
    asked = replace(one, evaluations=(replace(one.last, best="eval/sampled/fd_blocks"),))
    assert "undecided in fd_blocks" in verdict(asked)[1]
    # So it is by an evaluation of its own, whose checkpoint's training asked for it.
    one.last.provenance["best"] = "eval/sampled/fd_blocks"
    assert "undecided in fd_blocks" in verdict(one)[1]
    many = runs(tmp_path)
    (table,) = tables_of(many, over_seed=True)
    assert "over 3 seeds" in verdict(many[0], table)[1]


def test_the_verdict_of_a_job_that_has_not_ended(tmp_path: Path) -> None:
    run = read_run(train_job(tmp_path, state="running"))
    assert verdict(run)[0] == "The job is running at 20 of 20."
    assert len(verdict(run)) == 2


def test_a_table_is_told_apart_by_what_all_its_jobs_have() -> None:
    def table(*specs: dict[str, Any]) -> Any:
        return SimpleNamespace(runs=[SimpleNamespace(spec=spec) for spec in specs])

    alike = table({"lr": 1, "keep": 3, "seed": 0}, {"lr": 1, "keep": 5, "seed": 1})
    assert _of_all(alike, {"lr": 1, "keep": 3}) == {"lr": 1}
    assert _of_all(table({"lr": 1, "keep": 3}), {"lr": 1, "keep": 3}) == {"lr": 1, "keep": 3}
