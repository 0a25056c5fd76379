"""Jobs on the same images against each other: one table, and verdicts that agree with it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from colddiff.jobs.pages.read import read_run
from colddiff.report.page.contrast import INTERVALS, Side, contrast_text, over_text
from colddiff.report.page.details import Details
from colddiff.report.page.latex import to_latex
from colddiff.report.page.run import AttemptFacts, Measured, ReportedRun
from colddiff.report.page.table import head_text, notes_below, tables_of
from colddiff.report.page.told import told_of
from tests.unit.report.made_runs import train_job

FIRST, SECOND = "train-blocks-00000001", "train-blocks-00000002"


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[ReportedRun, ReportedRun]:
    storage = tmp_path_factory.mktemp("runs")
    first = read_run(train_job(storage, FIRST, strengths=(0.7,)))
    second = read_run(train_job(storage, SECOND, strengths=(0.9,)))
    first.job["spec"]["optimizer"], second.job["spec"]["optimizer"] = {"lr": 0.1}, {"lr": 0.2}
    return first, second


def changed(run: ReportedRun, *, name: str = "", details: bool = True, **proof: Any) -> ReportedRun:
    """``run`` with another id, entries of its provenance, or without values per image."""
    last = run.evaluations[-1]
    last = replace(last, provenance={**last.provenance, **proof})
    last = last if details else replace(last, details=None)
    return replace(run, id=name or run.id, evaluations=(last,))


def test_jobs_on_the_same_images_have_a_table_and_a_verdict(
    pair: tuple[ReportedRun, ReportedRun],
) -> None:
    told = told_of(pair)
    (table,) = told.side_by_side
    assert [row.label for row in table.rows] == [f"{FIRST}@step=10", f"{SECOND}@step=10"]
    names = ("fd_blocks", "ssim", "rmse", "psnr")
    ways = ("degraded", "direct", "naive", "sampled")
    assert table.metrics == tuple(f"{way}/{name}" for way in ways for name in names)
    for row, run in zip(table.rows, pair, strict=True):
        for name in table.metrics:
            assert row.cells[name].interval.value == run.evaluations[-1].metrics[f"eval/{name}"]
    latex = to_latex([table]).splitlines()
    heads = latex[latex.index(r"\toprule") + 1 : latex.index(r"\midrule")]
    labels = ("degraded", "direct", "Algorithm 1 (naive)", "Algorithm 2 (improved)")
    four = r" & fd\_blocks $\downarrow$ & ssim $\uparrow$ & rmse $\downarrow$ "
    four += r"& psnr (dB) $\uparrow$"
    assert heads == [
        "".join(rf" & \multicolumn{{4}}{{c}}{{{label}}}" for label in labels) + r" \\",
        " ".join(rf"\cmidrule(lr){{{n}-{n + 3}}}" for n in (2, 6, 10, 14)),
        four * 4 + r" \\",
    ]
    assert head_text(table.metrics[-2]) == "Algorithm 2 (improved): rmse ↓"
    # What is not in the table needs no explanation below it.
    assert not [note for note in notes_below(table) if note.startswith("real against real")]
    ours, theirs = (run.evaluations[-1].metrics["eval/sampled/rmse"] for run in reversed(pair))
    begin = f"{SECOND} against {FIRST}, Algorithm 2 (improved), over 23 images: "
    assert told.verdict[0].startswith(begin)
    assert f" in rmse ({ours:.4f} against {theirs:.4f}, difference" in told.verdict[0]
    assert told.verdict.count(INTERVALS) == 1
    assert told.verdict[-1] == INTERVALS
    # Before what to run next, which is the last word on a single job.
    assert told_of(pair[:1]).verdict[2] == INTERVALS
    # Both are compared by what tells the best checkpoint of the first.
    first = replace(pair[0], job={**pair[0].job, "spec": {**pair[0].spec}})
    first.job["spec"]["evaluation"] = {"best": "eval/direct/ssim"}
    assert f"{SECOND} against {FIRST}, direct, over 23" in told_of([first, pair[1]]).verdict[0]


def test_what_cannot_be_compared_is_said_in_a_clause(
    pair: tuple[ReportedRun, ReportedRun],
) -> None:
    first, second = pair
    told = told_of([first, changed(second, details=False)])
    assert "values per image are not recorded, no interval)" in told.verdict[0]
    assert "better" not in told.verdict[0]
    unlike: dict[str, dict[str, Any]] = {
        "c": {"reference_sha256": "0" * 64},
        "d": {"n": 17, "reference_sha256": "0" * 64},
        "e": {"degradation": {"kind": "snow"}},
        "f": {"image_protocol": "other"},
    }
    others = [changed(second, name=name, **proof) for name, proof in unlike.items()]
    told = told_of([first, *others])
    assert told.side_by_side == ()
    assert told.verdict[0] == (
        f"Not compared with {FIRST}: c (other test images); d (17 test images, not 23); "
        "e (degraded by snow, not blur); f (measured by another protocol)."
    )
    # Unlike features: the errors are compared all the same.
    (table,) = told_of([first, changed(second, feature_weights_sha256="0")]).side_by_side
    assert not [name for name in table.metrics if "fd_" in name]
    assert "no distances" in table.note
    # Below the table stands what is there: no features without their distance, no intervals here.
    assert "features fd_blocks" not in table.note
    assert table.note.endswith("the intervals over images stand in the verdict.")
    (table,) = told_of([first, changed(second, details=False)]).side_by_side
    assert "; features fd_blocks; " in table.note
    assert table.note.endswith("; one seed a job.")


def test_a_verdict_does_not_hide_where_it_began(pair: tuple[ReportedRun, ReportedRun]) -> None:
    first, second = (changed(run) for run in pair)
    for run, before in ((first, 0.001), (second, 0.001)):
        last = run.evaluations[-1]
        assert isinstance(last.metrics, dict)
        last = replace(last, metrics={**last.metrics, "eval/degraded/rmse": before})
        first, second = (
            replace(one, evaluations=(last,)) if one is run else one for one in (first, second)
        )
    both = told_of([first, second]).verdict[0]
    assert "; both are further from the originals than the degraded images (rmse 0.0010)." in both
    apart = told_of([pair[0], second])
    assert "; not to be compared where `degraded` differs: " in apart.side_by_side[0].note
    assert "not to be compared" not in told_of([first, second]).side_by_side[0].note
    one = apart.verdict[0]
    # Of unlike beginnings none is the better.
    assert "not compared, as their degraded images differ: rmse from 0.0010 to " in one
    assert " % more) against from 0." in one
    assert "better" not in one
    assert "worse" not in one


def test_a_verdict_over_seeds_and_its_time_are_of_all_of_them(
    pair: tuple[ReportedRun, ReportedRun],
) -> None:
    first = pair[0]
    seeds = []
    for seed, factor in ((0, 0.5), (1, 2.5)):
        last = first.evaluations[-1]
        metrics = {path: value * factor for path, value in last.metrics.items()}
        metrics["eval/degraded/rmse"] = last.metrics["eval/degraded/rmse"]
        job = {**first.job, "spec": {**first.spec, "seed": seed}}
        times = [AttemptFacts(n, None, outcome={"training_s": 1.5 * n}) for n in (1, 2)]
        seeds.append(
            replace(
                first,
                id=f"{first.id}-{seed}",
                job=job,
                evaluations=(replace(last, metrics=metrics),),
                attempts=tuple(times),
                result={**first.result, "time": {"training_s": 3.0}},
            )
        )
    told = told_of(seeds, over_seed=True)
    mean = 1.5 * min(
        first.evaluations[-1].metrics[f"eval/{way}/rmse"] for way in ("sampled", "direct", "naive")
    )
    assert f"{mean:.3f}" in told.verdict[0]
    assert "23 test images, mean of 2 seeds)" in told.verdict[0]
    assert [job.cost["training"] for job in told.jobs] == ["4.5 s", "4.5 s"]
    assert [job.name for job in told.jobs] == [run.id for run in seeds]


def test_several_seeds_of_two_jobs_are_told_apart_by_their_fields(
    pair: tuple[ReportedRun, ReportedRun],
) -> None:
    runs = [
        replace(run, id=f"{run.id}-{seed}", job={**run.job, "spec": {**run.spec, "seed": seed}})
        for run in pair
        for seed in range(2)
    ]
    titles = [table.title for table in tables_of(runs, over_seed=True)]
    assert titles == [f"blocks: 2 seeds with optimizer.lr={lr}" for lr in ("0.1", "0.2")]
    told = told_of(runs, over_seed=True)
    assert told.verdict[0].startswith(f"{titles[1]} against {titles[0]}, Algorithm 2 (improved)")
    assert "over 2 seeds" in told.verdict[0]
    assert INTERVALS not in told.verdict
    assert [row.label for row in told.side_by_side[0].rows] == titles


def side(values: Mapping[str, Any], *, seeds: int = 1) -> Side:
    """A column ``x`` with values per image by metric; ``fd_x`` is one number."""
    mse, ssim = (np.array(values[name], dtype=np.float64) for name in ("mse", "ssim"))
    details = Details({"x": mse}, {"x": ssim}, (), (), {}, {}, {}, ())
    metrics = {"rmse": float(np.sqrt(mse.mean())), "ssim": float(ssim.mean())}
    metrics |= {"psnr": -20 * float(np.log10(metrics["rmse"])), "fd_x": float(values["fd_x"])}
    paths = {f"eval/x/{name}": value for name, value in metrics.items()}
    shift = [{path: value + 1e-6 * seed for path, value in paths.items()} for seed in range(seeds)]
    return Side(tuple(Measured(1, found, {"n": len(mse)}, details) for found in shift), "x")


@pytest.mark.parametrize("metric", ["rmse", "ssim", "psnr", "fd_x"])
def test_what_is_not_distinguished_is_never_called_better(metric: str) -> None:
    noise = np.random.default_rng(0).random(30)
    near = side({"mse": 0.1 + noise, "ssim": noise, "fd_x": 3})
    # Another order of the same values: a mean that is equal, but for rounding and one image.
    last = noise[::-1] - 0.03 * (np.arange(30) == 0)
    same = side({"mse": 0.1 + last, "ssim": last, "fd_x": 2})
    far = side({"mse": 0.5 + noise, "ssim": noise - 0.4, "fd_x": 9})
    alike, apart = contrast_text(metric, same, near), contrast_text(metric, near, far)
    worse = contrast_text(metric, far, near)
    if metric == "fd_x":
        assert (alike, apart[:9]) == (
            "undecided in fd_x (2 against 3: one seed, no interval)",
            "undecided",
        )
        return
    assert alike.startswith(f"not distinguished in {metric} (")
    assert "better" not in alike
    assert apart.startswith(f"better in {metric} (")
    assert worse.startswith(f"worse in {metric} (")
    several = side({"mse": 0.1 + noise, "ssim": noise, "fd_x": 3}, seeds=3)
    others = side({"mse": 0.5 + noise, "ssim": noise - 0.4, "fd_x": 9}, seeds=3)
    assert contrast_text(metric, several, others).startswith(f"better in {metric} (")
    assert contrast_text(metric, several, several).startswith("not distinguished in")
    assert "one seed, no interval" in contrast_text(metric, several, far)
    assert over_text(several, far) == "over 3 and 1 seeds"
    assert contrast_text("recall", near, far) == ""
