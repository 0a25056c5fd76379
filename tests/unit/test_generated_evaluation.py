"""Samples made at each evaluation: the same images and distance as those of `submit generate`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import colddiff
from colddiff.errors import SpecError
from colddiff.jobs.folder import JobFolder
from colddiff.report.tables import evaluation_line
from colddiff.stores.open import open_store
from tests.unit.search.tiny_search import BASE

COLLAPSE = {"kind": "blur", "num_timesteps": 6, "kernel_size": 5, "collapse_to_mean": True}


@pytest.fixture(autouse=True)
def storage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("COLDDIFF_STORAGE", str(tmp_path / "runs"))
    monkeypatch.setenv("COLDDIFF_CACHE", str(tmp_path / "cache"))
    return tmp_path / "runs"


def trained(generated: dict[str, Any], **fields: Any) -> dict[str, Any]:
    evaluation = {"samplers": [], "batch_size": 10, "generated": generated}
    job = {**BASE, "degradation": COLLAPSE, "evaluation": evaluation, **fields}
    return colddiff.train(job, name="tiny")


def test_the_distance_is_that_of_a_generation_job(storage: Path) -> None:
    wanted = {"num_images": 30, "severities": 3, "symmetry_noise": 0.002, "first_seed": 5}
    result = trained(wanted, evaluate_every=2)
    made = colddiff.generate(
        {
            "checkpoint": result["checkpoint"],
            "num_samples": 30,
            "severities": 3,
            "symmetry_noise": 0.002,
            "first_seed": 5,
            "batch_size": 10,
            "statistics": ["lenet"],
            "reference": "digits",
        },
        name="tiny",
    )
    distance = result["metrics"]["eval/generated/fd_lenet"]
    assert distance == pytest.approx(made["metrics"]["generate/fd_lenet"], rel=1e-6)

    folder = JobFolder(open_store(str(storage)), result["id"])
    assert folder.evaluated_steps() == [2, 4]
    found = {step: (folder.evaluation(step) or {})["metrics"] for step in (2, 4)}
    assert found[2]["eval/generated/fd_lenet"] != found[4]["eval/generated/fd_lenet"]
    # Without a restored column the best checkpoint is that of the best samples.
    best = min((2, 4), key=lambda step: found[step]["eval/generated/fd_lenet"])
    assert result["best_step"] == best
    about = result["provenance"]["generated"]
    assert (about["n"], about["severities"], about["terminal"]["kind"]) == (30, [6, 4, 2, 0], "gmm")
    assert any(picture.endswith("samples.png") for picture in result["pictures"])


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"degradation": {"kind": "inpaint", "num_timesteps": 6}},
            r"evaluation\.generated: inpaint has no distribution of x_T to draw samples from",
        ),
        (
            {"evaluation": {"generated": {"severities": 9}}},
            r"severities: must be 1\.\.6 steps, got 9",
        ),
        (
            {"evaluation": {"generated": {"severities": [4, 0]}}},
            r"evaluation\.generated\.severities: must start at T = 6, where x_T is drawn, got 4",
        ),
    ],
    ids=["no terminal", "too many steps", "a start below T"],
)
def test_what_cannot_be_sampled_is_refused_before_training(
    storage: Path, fields: dict[str, Any], message: str
) -> None:
    with pytest.raises(SpecError, match=message):
        trained({"num_images": 4}, **fields)
    assert not (storage / "jobs").exists()


def test_the_distance_of_samples_is_in_the_line_of_an_evaluation() -> None:
    metrics = {
        "eval/degraded/fd_lenet": 900.0,
        "eval/degraded/rmse": 0.2,
        "eval/floor/fd_lenet": 30.0,
        "eval/generated/fd_lenet": 512.0,
    }
    assert evaluation_line(metrics) == "fd_lenet 512 (generated)"
    both = evaluation_line(metrics | {"eval/direct/fd_lenet": 40.0, "eval/direct/rmse": 0.1})
    assert both == (
        "fd_lenet 900 (degraded), 40 (direct), 512 (generated); "
        "rmse 0.2000 (degraded), 0.1000 (direct)"
    )
    alone = evaluation_line(metrics | {"eval/direct/rmse": 0.1}, distances=False)
    assert alone == "rmse 0.2000 (degraded), 0.1000 (direct)"
