"""The metric that tells the best: one that fits the images, and who is told where it does not."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from colddiff.errors import SpecError
from colddiff.evaluation.best import (
    REAL,
    BestStep,
    best_step,
    higher_is_better,
    misfit,
    notes_of,
    notes_on_restored,
    standing_metric,
)
from colddiff.evaluation.spec import EvaluationSpec
from colddiff.jobs.recipes import load_recipe
from colddiff.jobs.verb import VERBS
from colddiff.report.card import _results
from colddiff.report.tables import evaluation_table
from colddiff.spec import parse
from colddiff.verbs.train.job import TrainJob
from colddiff.verbs.train.resolve import resolve_training

METRICS = (
    "eval/sampled/fd_lenet",
    "eval/sampled/rmse",
    "eval/degraded/rmse",
    "eval/floor/fd_lenet",
)


@pytest.mark.parametrize(
    ("distance", "shape", "n", "why"),
    [
        ("fd_lenet", (1, 16, 16), 65, None),
        ("fd_lenet", (1, 16, 16), 64, "64 images are too few for the 64 features of fd_lenet"),
        ("fd_lenet", (1, 32, 32), 900, "fd_lenet compares grey digits of 16 x 16 px, and these "),
        ("fd_lenet", (3, 16, 16), 900, "these images are 3 x 16 x 16"),
        ("fid", (3, 64, 64), 2049, None),
        ("fid", (3, 64, 64), 2048, "2048 images are too few for the 2048 features of fid"),
        ("fd_mine", (3, 64, 64), 2, None),
    ],
    ids=str,
)
def test_a_distance_fits_images_of_its_kind_and_more_of_them_than_features(
    distance: str, shape: tuple[int, ...], n: int, why: str | None
) -> None:
    found = misfit(distance, shape, n)
    assert found is None if why is None else why in str(found)


@pytest.mark.parametrize(
    ("paths", "misfits", "metric"),
    [
        (METRICS, (), "eval/sampled/fd_lenet"),
        (METRICS, ("fd_lenet",), "eval/sampled/rmse"),
        (
            ("eval/generated/fd_lenet", "eval/floor/fd_lenet"),
            ("fd_lenet",),
            "eval/generated/fd_lenet",
        ),
        (("eval/direct/fid", "eval/direct/rmse"), (), "eval/direct/fid"),
        (("eval/direct/fd_lenet", "eval/direct/rmse"), ("fd_lenet",), "eval/direct/rmse"),
        (("generate/fd_lenet",), (), "generate/fd_lenet"),
        (("eval/degraded/rmse", "eval/floor/fid", "train/loss_l1"), (), None),
    ],
    ids=str,
)
def test_the_metric_that_stands_for_an_evaluation(
    paths: tuple[str, ...], misfits: tuple[str, ...], metric: str | None
) -> None:
    assert standing_metric(paths, misfits=misfits) == metric


def test_a_metric_has_its_direction() -> None:
    assert [name for name in ("rmse", "ssim", "psnr", "fid", "fd_x") if higher_is_better(name)] == [
        "ssim",
        "psnr",
    ]
    records = {
        2: {"metrics": {"eval/direct/psnr": 20.0}},
        4: {"metrics": {"eval/direct/psnr": 30.0}},
        6: {"metrics": {"eval/direct/psnr": 30.0}},
        8: {"metrics": {"eval/direct/psnr": float("nan")}},
    }
    job = {"evaluation": {"best": "eval/direct/psnr"}}
    assert best_step(records, job) == BestStep(4, "eval/direct/psnr", 30.0)
    assert best_step({}, job) is None


def test_steps_are_compared_by_the_metric_of_the_last_one() -> None:
    """A job whose features were changed on the way has distances that do not compare."""
    records = {
        2: {"metrics": {"eval/sampled/fd_lenet": 1.0}},
        4: {"metrics": {"eval/sampled/fid": 50.0}},
        6: {"metrics": {"eval/sampled/fid": 60.0}},
    }
    assert best_step(records, {}) == BestStep(4, "eval/sampled/fid", 50.0)


def test_steps_are_compared_on_the_test_images_of_the_last_one() -> None:
    """Of a job that goes on with fewer test images, the earlier values say nothing beside these."""
    records = {
        step: {"metrics": {"eval/sampled/rmse": value}, "provenance": {"n": n}}
        for step, value, n in ((2, 0.1, 200), (4, 0.3, 100), (6, 0.4, 100))
    }
    assert best_step(records, {}) == BestStep(4, "eval/sampled/rmse", 0.3)


def test_a_job_may_name_a_metric_that_it_evaluates() -> None:
    found = parse(EvaluationSpec, {"best": "eval/sampled/ssim"})
    assert found.best == "eval/sampled/ssim"
    assert "best" not in EvaluationSpec().to_dict(), "ids and records of earlier jobs"
    for wrong, near in (
        ("eval/sampled/sim", "eval/sampled/ssim"),
        ("eval/sampled/fid", "fd_lenet"),
    ):
        with pytest.raises(SpecError, match=rf"best: .* is no metric of this evaluation.*{near}"):
            parse(EvaluationSpec, {"best": wrong})
    with pytest.raises(SpecError, match="eval/naive/rmse"):
        parse(EvaluationSpec, {"best": "eval/naive/rmse", "samplers": ["improved"]})
    generated = {"features": "inception", "generated": {}, "best": "eval/generated/fid"}
    assert parse(EvaluationSpec, generated).best == "eval/generated/fid"


@pytest.mark.parametrize(
    ("evaluation", "told"),
    [
        ({"num_images": 16}, "16 images are too few for the 64 features of fd_lenet; "
         "eval/sampled/rmse tells the best checkpoint"),
        ({"num_images": 16, "best": "eval/direct/ssim"}, "eval/direct/ssim tells the best"),
        ({}, None),
    ],
    ids=str,
)  # fmt: skip
def test_a_distance_that_does_not_fit_is_named_at_submission(
    packed: dict[str, str],
    storage: Any,
    caplog: pytest.LogCaptureFixture,
    evaluation: dict[str, Any],
    told: str | None,
) -> None:
    job = parse(
        TrainJob,
        {
            "data": packed["data"],
            "test_data": packed["test_data"],
            "image_size": 16,
            "channels": 1,
            "restorer": {"kind": "convnext_unet", "dim": 8, "dim_mults": [1, 2]},
            "evaluation": evaluation,
        },
    )
    with caplog.at_level(logging.WARNING):
        resolve_training(job, str(storage), pack=True)
    assert bool(caplog.messages) == (told is not None), caplog.messages
    assert told is None or told in caplog.messages[0]


def test_a_dry_run_names_it_as_well_and_nobody_who_has_chosen_is_told() -> None:
    job = load_recipe("cpu/deblur-mnist").job("train", ["data=mnist:nowhere"])
    assert not [line for line in VERBS["train"].dry_run(job, None).lines if "digits" in line]
    job = job.with_({"evaluation.best": None})
    assert not [line for line in VERBS["train"].dry_run(job, None).lines if "digits" in line]
    job = job.with_({"evaluation.best": "eval/sampled/fd_lenet"})
    (line,) = [line for line in VERBS["train"].dry_run(job, None).lines if "digits" in line]
    assert line.startswith("evaluation: fd_lenet compares grey digits of 16 x 16 px, and these")
    assert "read rmse, ssim and psnr, or choose other features" in line


def test_real_against_real_is_explained_where_it_stands() -> None:
    provenance: dict[str, Any] = {
        "n": 40,
        "notes": notes_on_restored("fd_lenet", (3, 64, 64), 40, 64),
        "test_manifest": "0",
        "severities": [4, 3, 0],
        "seed": 0,
        "metric": "fd_lenet",
        "protocol": "8 bit",
        "feature_weights_sha256": "0",
        "image_protocol": "at full depth",
    }
    metrics = {
        "eval/sampled/fd_lenet": 5.0,
        "eval/direct/fd_lenet": 7.0,
        "eval/floor/fd_lenet": 6.0,
    }
    table = evaluation_table(metrics, provenance)
    assert table.splitlines()[0].endswith("real against")
    card = _results({"metrics": metrics, "provenance": provenance})
    assert "| Algorithm 2 (improved) | 5 |" in card
    assert f"| {REAL} | 6 |" in card
    for text in (" ".join(table.split()), card):
        assert "halves of the 40 test images; a restoration can be below it, because" in text
        assert "grey digits of 16 x 16 px, and these images are 3 x 64 x 64" in text
        assert "40 images for 64 features: Frechet distances are biased upwards" in text
        assert "floor" not in text


def test_notes_of_earlier_versions_have_the_name_of_today() -> None:
    before = {"notes": ["floor: two disjoint random halves of the 9 test images"]}
    assert notes_of(before) == [f"{REAL} is two disjoint random halves of the 9 test images"]
    assert notes_of({}) == []


def test_what_does_not_fit_comes_last_and_no_star_stands_where_nothing_was_gained() -> None:
    metrics = {
        f"eval/{column}/{metric}": value
        for metric, values in {"fd_lenet": (9, 7, 5), "rmse": (0.10, 0.12, 0.11)}.items()
        for column, value in zip(("degraded", "direct", "sampled"), values, strict=True)
    }
    fits = evaluation_table(metrics, {"metric": "fd_lenet", "misfit": None}).splitlines()
    assert "5*" in next(line for line in fits if line.startswith("fd_lenet"))
    unfit = evaluation_table(metrics, {"metric": "fd_lenet", "misfit": "not digits"}).splitlines()
    rows = [line.split()[0] for line in unfit if line.split()[0] in ("fd_lenet", "rmse")]
    assert rows == ["rmse", "fd_lenet"]
    # Degraded images are nearer to the originals than any restoration.
    assert not any("*" in line for line in unfit)
