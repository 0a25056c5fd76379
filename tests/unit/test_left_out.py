"""A distance of other images that nobody asked for: people are not shown it anywhere."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from colddiff.data.pack import pack
from colddiff.data.pack_settings import PackSettings
from colddiff.evaluation.best import DIGITS, REAL, left_out, misfit, notes_on_restored
from colddiff.evaluation.spec import EvaluationSpec
from colddiff.jobs.pages.read import read_run
from colddiff.jobs.results import result_lines
from colddiff.jobs.verb import VERBS
from colddiff.report.card import _results
from colddiff.report.grids import _captions
from colddiff.report.page.markdown import report_markdown
from colddiff.report.page.measurements import plots_of
from colddiff.report.page.run import ReportedRun
from colddiff.report.page.table import tables_of
from colddiff.report.pictures import evaluation_pictures
from colddiff.report.tables import curve_table, evaluation_line, evaluation_table
from colddiff.spec import parse
from colddiff.stores.local_store import LocalStore
from colddiff.verbs.evaluate.job import EvaluateJob
from colddiff.verbs.evaluate.resolve import _warn_of_misfit, resolve_evaluation, unfit_default
from colddiff.verbs.search.settings import ranked_by_misfit
from colddiff.verbs.study.members import Member, Trainings
from colddiff.verbs.study.table import best_mean, over_seeds, table_lines
from colddiff.verbs.train.checkpoint_evaluation import report_evaluation
from colddiff.verbs.train.job import TrainJob
from colddiff.verbs.train.resolve import misfit_lines
from tests.drawn_source import Drawn
from tests.unit.report.made_runs import train_job
from tests.unit.study.test_study_table import record


def of_photographs(**more: Any) -> dict[str, Any]:
    """Provenance of an evaluation of colour photographs in the default features."""
    why = misfit("fd_lenet", (3, 32, 32), 40)
    notes = notes_on_restored("fd_lenet", (3, 32, 32), 40, 64)
    return {"metric": "fd_lenet", "misfit": why, "notes": notes, **more}


@pytest.mark.parametrize(
    ("provenance", "best", "hidden"),
    [
        (of_photographs(), None, "fd_lenet"),
        (of_photographs(), "eval/direct/ssim", "fd_lenet"),
        (of_photographs(), "eval/direct/fd_lenet", None),
        # Of a checkpoint whose training asked for it.
        (of_photographs(best="eval/sampled/fd_lenet"), None, None),
        # Images made without an image have no other measure.
        (of_photographs(generated={}), None, None),
        (of_photographs(samples_manifest="0"), None, None),
        # Of few digits it is biased, but of digits; and other features somebody chose.
        (of_photographs(misfit=misfit("fd_lenet", (1, 16, 16), 40)), None, None),
        (of_photographs(metric="fid", misfit=misfit("fid", (3, 32, 32), 40)), None, None),
        ({"metric": "fd_lenet", "misfit": None}, None, None),
        ({}, None, None),
    ],
    ids=str,
)
def test_a_distance_of_other_images_is_shown_only_where_it_was_asked_for(
    provenance: dict[str, Any], best: str | None, hidden: str | None
) -> None:
    assert left_out(provenance, best) == hidden


def test_the_features_that_nobody_need_have_chosen_are_the_default_ones() -> None:
    fields = (EvaluationSpec().features, EvaluateJob().features)
    assert {features.metric for features in fields} == {DIGITS}


def test_who_submits_is_warned_of_what_is_shown(caplog: pytest.LogCaptureFixture) -> None:
    _warn_of_misfit(EvaluateJob(checkpoint="a"), (3, 32, 32), 40, True)
    assert not caplog.messages
    _warn_of_misfit(EvaluateJob(samples="a", reference="b"), (3, 32, 32), 40, True)
    _warn_of_misfit(EvaluateJob(checkpoint="a"), (1, 16, 16), 40, True)
    assert [
        ("use features=inception" in line, "choose other features" in line)
        for line in caplog.messages
    ] == [(True, False), (False, True)]
    photographs = {"data": "a", "test_data": "b", "image_size": 32, "channels": 3}
    for evaluation, told in (
        ({}, 0),
        ({"best": "eval/sampled/ssim"}, 0),
        ({"best": "eval/sampled/fd_lenet"}, 1),
        ({"generated": {}}, 1),
    ):
        job = parse(TrainJob, {**photographs, "evaluation": evaluation})
        assert len(misfit_lines(job, 40)) == told, evaluation
    # A search ranks by what its trainings do not show.
    for metric, other in (
        ("eval/sampled/fd_lenet", "metric=eval/sampled/rmse"),
        ("fd_lenet", "metric=rmse"),  # of a checkpoint
        ("eval/generated/fd_lenet", "other features"),
    ):
        (line,) = ranked_by_misfit(metric, job)
        assert line.startswith(f"metric: trials are ranked by {metric}, but fd_lenet compares")
        assert line.endswith(f"; {other} would fit")
    assert ranked_by_misfit("eval/sampled/rmse", job) == []


def test_samples_of_other_images_are_told_of_features_that_measure_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("COLDDIFF_FEATURES", str(tmp_path / "features"))
    colours = tmp_path / "colours"
    pack(Drawn(4, (8, 8, 3)), LocalStore(colours), PackSettings())
    fields: dict[str, Any] = {"samples": str(colours), "reference": str(colours)}
    unasked, asked = parse(EvaluateJob, fields), parse(EvaluateJob, fields | {"features": "lenet"})
    resolve_evaluation(unasked, str(tmp_path), pack=True)
    (said,) = VERBS["evaluate"].dry_run(unasked, None).lines
    assert said in caplog.text
    assert said.startswith(
        "features: fd_lenet compares grey digits of 16 x 16 px, and these images"
    )
    assert "use features=inception (no weights at " in said
    assert "download https://" in said
    resolve_evaluation(asked, str(tmp_path), pack=True)
    (note,) = VERBS["evaluate"].dry_run(asked, None).lines
    assert note.startswith("features: fd_lenet compares grey digits")
    assert "use features=inception (" not in note
    # On S3 nothing is looked at.
    away = parse(EvaluateJob, {"samples": "s3://a/b", "reference": "s3://a/c"})
    (note,) = VERBS["evaluate"].dry_run(away, None).lines
    assert "others need features=inception" in note
    assert unfit_default(parse(EvaluateJob, {"checkpoint": "a"}), (3, 64, 64)) is None


def test_neither_tables_nor_captions_nor_the_card_name_it(monkeypatch: pytest.MonkeyPatch) -> None:
    metrics = {
        f"eval/{column}/{name}": value
        for column in ("degraded", "direct", "sampled", "curve_2")
        for name, value in {"fd_lenet": 5.0, "rmse": 0.1}.items()
    } | {"eval/floor/fd_lenet": 6.0}
    more = {"n": 40, "test_manifest": "0", "severities": [4, 0], "seed": 0, "protocol": "8 bit"}
    more |= {"feature_weights_sha256": "0", "image_protocol": "at full depth", "omitted": {}}
    more["omitted"] = {"eval/naive/fd_lenet": "too few", "eval/naive/ssim": "under its window"}
    provenance = of_photographs(**more)
    pictures = {name: np.zeros((1, 3, 32, 32), np.uint8) for name in ("original", "direct")}
    provenance["degradation"] = {"kind": "blur"}
    evaluation: Any = SimpleNamespace(
        metrics=metrics, provenance=provenance, trajectory=None, pictures=pictures
    )

    def shown(best: str | None) -> list[str]:
        table = evaluation_table(metrics, provenance, best)
        card = _results({"metrics": metrics, "provenance": provenance}, best)
        return [table, curve_table(metrics, provenance, best), card]

    for text in shown(None):
        assert "rmse" in text
        assert "lenet" not in text
        assert REAL not in text
        assert "digits" not in text
    assert "no ssim (naive): under its window" in shown(None)[0]
    table, curve, card = shown("eval/direct/fd_lenet")
    for text in (table, curve, card):
        assert text.index("rmse") < text.index("fd_lenet")
    assert "grey digits" in table
    line = evaluation_line(metrics, last="fd_lenet")
    assert line.index("rmse") < line.index("fd_lenet")
    assert "fd_lenet: 8 bit" in card
    drawn: list[Any] = []
    monkeypatch.setattr(
        "colddiff.report.pictures.comparison_grid", lambda *a, **k: drawn.append((a, k))
    )
    evaluation_pictures(evaluation)
    evaluation_pictures(evaluation, best="eval/direct/fd_lenet")
    (unasked, without), (asked, noted) = drawn
    assert "eval/direct/fd_lenet" not in unasked[1]
    assert without["notes"] == []
    assert "eval/direct/fd_lenet" in asked[1]
    assert noted["notes"]
    captions = _captions("direct", asked[1], noted["last"])
    assert captions == ("rmse 0.100", "fd_lenet 5")


def photographs_run(storage: Path, best: str | None) -> ReportedRun:
    """A training on colour photographs in the default features, evaluated twice."""
    run = read_run(train_job(storage, evaluation={"best": best} if best else {}))
    return replace(
        run,
        evaluations=tuple(
            replace(
                one,
                metrics={
                    path.replace("fd_blocks", "fd_lenet"): v for path, v in one.metrics.items()
                },
                provenance={**one.provenance, **of_photographs()},
            )
            for one in run.evaluations
        ),
    )


def test_a_result_on_the_screen_does_not_name_what_it_leaves_out() -> None:
    metrics = {"eval/sampled/fd_lenet": 5.0, "eval/sampled/rmse": 0.1}
    result = {"id": "train-a-00000000", "metrics": metrics, "provenance": of_photographs()}
    training = {**result, "checkpoint": "c", "best": {"step": 2, "metric": "x", "value": 0.1}}
    members = [record(0, seed, left_out="fd_lenet") for seed in (0, 1)]
    study = {"id": "train-a-00000000", "members": members, "table": "t", "metrics": {}}
    for verb, told in (("evaluate", result), ("train", training), ("study", study)):
        lines = "\n".join(result_lines(f"{verb}-a", told))
        assert "rmse" in lines, verb
        assert "lenet" not in lines, verb
    asked = {**training, "best": {"step": 2, "metric": "eval/sampled/fd_lenet", "value": 5.0}}
    assert "fd_lenet" in "\n".join(result_lines("train-a", asked))


def test_a_report_has_it_where_it_was_asked_for_there_or_in_the_job(tmp_path: Path) -> None:
    run = photographs_run(tmp_path / "a", None)
    (table,) = tables_of([run])
    assert table.metrics == ("ssim", "rmse", "psnr")
    text = report_markdown([run]).partition("### Attempts")[0]
    assert "fd_lenet does not fit these images: `--metric fd_lenet` shows it." in text
    assert text.count("lenet") == 2
    assert "digits" not in text
    assert REAL not in text
    assert not [
        plot.title for group in plots_of(run) for plot in group["plots"] if "fd_" in plot.title
    ]
    (chosen,) = tables_of([run], only=["fd_lenet", "rmse"])
    assert chosen.metrics == ("rmse", "fd_lenet")
    assert "digits" in report_markdown([run], only=["fd_lenet"])
    groups = plots_of(run, ["fd_lenet"])
    assert any("fd_lenet" in plot.title for group in groups for plot in group["plots"])
    asked = photographs_run(tmp_path / "b", "eval/sampled/fd_lenet")
    (table,) = tables_of([asked])
    assert table.metrics == ("ssim", "rmse", "psnr", "fd_lenet")
    assert "digits" in report_markdown([asked])


def test_it_is_never_in_bold(tmp_path: Path) -> None:
    runs = [
        replace(photographs_run(tmp_path / str(n), "eval/sampled/fd_lenet"), id=f"train-{n}")
        for n in range(2)
    ]
    (table,) = tables_of(runs, over_seed=True)
    best = {name for row in table.rows for name, cell in row.cells.items() if cell.best}
    assert best
    assert "fd_lenet" not in best


def test_a_study_neither_shows_it_nor_is_listed_by_it() -> None:
    records = [record(0, seed, left_out="fd_lenet") for seed in (0, 1)]
    lines = table_lines(records)
    assert any("rmse" in line for line in lines)
    assert not any("fd_lenet" in line for line in lines)
    found = best_mean(over_seeds(records))
    assert found is not None
    assert found[0] == "eval/sampled/rmse"
    assert "eval/sampled/fd_lenet" in over_seeds(records)[0]["mean"], "it is stored"


def test_a_line_on_the_way_is_without_it() -> None:
    told: list[str] = []

    def lines_of(best: str | None) -> str:
        job = parse(TrainJob, {"evaluation": {"best": best}})
        attempt: Any = SimpleNamespace(
            folder=SimpleNamespace(best=lambda steps: None, evaluated_steps=list),
            resolved=SimpleNamespace(job_as=lambda kind: job),
            report=told.append,
        )
        metrics = {"eval/sampled/fd_lenet": 5.0, "eval/sampled/rmse": 0.1}
        report_evaluation(attempt, 2, {"metrics": metrics, "provenance": of_photographs()})
        return told[-1]

    assert "fd_lenet" not in lines_of(None)
    assert lines_of("eval/sampled/fd_lenet").endswith("; fd_lenet 5 (Algorithm 2 (improved))")


def test_the_record_of_a_study_names_it() -> None:
    entry = SimpleNamespace(recipe=None, overrides={})
    found = {"metrics": {"eval/sampled/fd_lenet": 5.0}, "provenance": of_photographs()}
    trainings: Any = SimpleNamespace(
        _attempt=SimpleNamespace(
            resolved=SimpleNamespace(job_as=lambda kind: SimpleNamespace(jobs=[entry]))
        ),
        _errors={},
        state=lambda member: "done",
        _result=lambda member: (4, found),
        _measured=lambda member: "a",
    )
    member = Member(0, 0, "train-a-00000000", "a", TrainJob(), {}, (), {}, "a")
    made = Trainings.record(trainings, member)
    assert (made["left_out"], made["metrics"]) == ("fd_lenet", found["metrics"])
