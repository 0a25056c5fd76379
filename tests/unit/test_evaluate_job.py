"""`submit evaluate --local`: a checkpoint on test images, samples against a reference."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from colddiff.checkpoints.references import find_checkpoint
from colddiff.data.open import open_samples, open_shards, pack_source, read_manifest
from colddiff.errors import SpecError
from colddiff.evaluation.metrics import FeatureStatistics, frechet_distance
from colddiff.features.open import open_features
from colddiff.jobs.plugins import keep_plugins
from colddiff.jobs.resolve import identified
from colddiff.spec import parse
from colddiff.spec.plugins import load_plugin, unload_plugin
from colddiff.stores.local_store import LocalStore
from colddiff.verbs.evaluate.job import EvaluateJob
from tests.in_process import Done, colddiff_here
from tests.tiny_checkpoint import tiny_checkpoint

Evaluate = Callable[..., Done]
EXAMPLE = Path(__file__).resolve().parents[2] / "infra" / "docs" / "own-degradation" / "kspace.py"


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Digits at 16 px: 40 of the training images, 30 of the test images."""
    root = tmp_path_factory.mktemp("digits")
    found = {}
    for split, limit in (("train", 40), ("test", 30)):
        found[split] = str(root / split)
        pack_source("digits", found[split], image_size=16, channels=1, split=split, limit=limit)
    return found


@pytest.fixture
def evaluate(
    tmp_path: Path,
    storage: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Evaluate:
    monkeypatch.setenv("COLDDIFF_HOME", str(tmp_path / "home"))

    def run(*words: str, verb: str = "evaluate") -> Done:
        return colddiff_here(monkeypatch, capsys, "submit", verb, *words, "--local")

    return run


def result_of(done: Done) -> dict[str, Any]:
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(Path(json.loads(done.stdout)["result"]).read_text())
    return found


def error_of(done: Done) -> str:
    assert (done.returncode, done.stdout) == (2, ""), done.stderr
    return done.stderr.splitlines()[-1]


def test_a_checkpoint_is_measured_once(
    evaluate: Evaluate, tmp_path: Path, digits: dict[str, str]
) -> None:
    checkpoint = tiny_checkpoint(tmp_path / "checkpoint")
    words = (f"checkpoint={checkpoint}", f"test_data={digits['test']}", "num_images=20")
    first = evaluate(*words, "severities=2", "--json")
    result = result_of(first)
    assert {"eval/degraded/fd_lenet", "eval/sampled/ssim"} <= result["metrics"].keys()
    provenance = result["provenance"]
    assert provenance["n"] == 20
    assert provenance["severities"] == [4, 2, 0]
    assert "Algorithm 2" in result["summary"][0]
    # What is not for a program shows the table, here and on a cluster.
    told = evaluate(*words, "severities=2").stderr
    for line in (*result["summary"], *(f"  {picture}" for picture in result["pictures"])):
        assert f"{line}\n" in told
    few = "20 images are too few for the 64 features of fd_lenet"
    assert few not in told, "the job is done"
    assert 'id="severity"' in Path(result["report"]).read_text()
    assert provenance["weights_sha256"] == find_checkpoint(checkpoint).weights_sha256
    assert provenance["test_manifest"] == read_manifest(digits["test"]).digest
    assert all(Path(picture).stat().st_size for picture in result["pictures"])
    assert json.loads(first.stdout)["id"].startswith("evaluate-job-")
    again = evaluate(*words, "severities=2", "workers=2", "--json")
    assert "is done" in again.stderr
    assert json.loads(again.stdout)["attempt"] == 1
    other = evaluate(*words, "severities=4")
    assert other.stdout.split()[0] != json.loads(first.stdout)["id"]
    assert other.stderr.count(few) == 1


def test_what_the_training_asked_for_is_remembered(
    evaluate: Evaluate, tmp_path: Path, digits: dict[str, str]
) -> None:
    asked = "eval/sampled/fd_lenet"
    checkpoint = tiny_checkpoint(tmp_path / "checkpoint", evaluation={"best": asked})
    words = (f"checkpoint={checkpoint}", f"test_data={digits['test']}", "num_images=4")
    result = result_of(evaluate(*words, "severities=1", "tracking.images=false", "--json"))
    assert result["provenance"]["best"] == asked


def test_a_distance_that_does_not_fit_is_named_once_however_often_a_job_is_resolved(
    tmp_path: Path, digits: dict[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    checkpoint = tiny_checkpoint(tmp_path / "checkpoint")
    fields = {"checkpoint": checkpoint, "test_data": digits["test"], "num_images": 20}
    # Before it is submitted to a tracking server, it is resolved to see whether it is done.
    for pack in (False, True):
        with caplog.at_level(logging.WARNING):
            identified(parse(EvaluateJob, fields), "x", str(tmp_path), pack=pack)
    assert [line for line in caplog.messages if "fd_lenet" in line] == [
        "features: 20 images are too few for the 64 features of fd_lenet; read rmse, ssim and "
        "psnr, or choose other features (`colddiff features`)"
    ]


def test_packed_images_are_samples_too(evaluate: Evaluate, digits: dict[str, str]) -> None:
    words = (f"samples={digits['train']}", f"reference={digits['test']}", "--json")
    result = result_of(evaluate(*words))
    assert result["metrics"].keys() == {"eval/generated/fd_lenet", "eval/floor/fd_lenet"}
    provenance = result["provenance"]
    assert (provenance["n"], provenance["n_reference"]) == (40, 30)
    assert provenance["samples_manifest"] == read_manifest(digits["train"]).digest
    assert any("biased upwards" in note for note in provenance["notes"])
    same = (f"samples={digits['test']}", f"reference={digits['test']}", "--json")
    assert result_of(evaluate(*same))["metrics"]["eval/generated/fd_lenet"] < 1e-3


def test_a_half_made_sample_set_is_measured_only_when_that_is_said(
    evaluate: Evaluate, tmp_path: Path, digits: dict[str, str]
) -> None:
    noise = {"kind": "noise", "num_timesteps": 2}
    checkpoint = tiny_checkpoint(tmp_path / "checkpoint", degradation=noise)
    made = evaluate(
        f"checkpoint={checkpoint}", "terminal={kind: standard_normal}", "num_samples=11",
        "shard_size=3", "batch_size=3", "--json", verb="generate",
    )  # fmt: skip
    out = result_of(made)["samples"]
    words = (f"samples={out}", f"reference={digits['test']}", "--json")
    whole = result_of(evaluate(*words))
    assert whole["provenance"]["n"] == 11
    images = open_samples(out).images(0, 11)
    for name in ("manifest.json", "shard-000001.tar"):
        (Path(out) / name).unlink()
    message = error_of(evaluate(*words))
    assert "the sample set is unfinished, 8 images in 3 shards of 3, missing shard 1" in message
    assert "partial=true (11 were requested)" in message
    part = evaluate(*words, "partial=true")
    result = result_of(part)
    assert result["provenance"]["n"] == 8
    there = FeatureStatistics.of(
        open_features("lenet").features(torch.from_numpy(images[[0, 1, 2, *range(6, 11)]]))
    )
    test = open_shards(digits["test"]).images(0, 30)
    reference = FeatureStatistics.of(
        open_features("lenet").features(torch.from_numpy(np.array(test)))
    )
    assert result["metrics"]["eval/generated/fd_lenet"] == pytest.approx(
        frechet_distance(there, reference), rel=1e-6
    )
    # More of it is another evaluation: what was found of a part is never taken for the whole.
    assert json.loads(part.stdout)["id"] != whole["id"]


def test_the_plugin_of_a_checkpoint_runs_in_a_job_when_it_is_trusted(
    evaluate: Evaluate, tmp_path: Path, digits: dict[str, str]
) -> None:
    loaded = load_plugin(EXAMPLE)
    kspace = {"kind": "kspace", "num_timesteps": 2}
    place = tmp_path / "checkpoint"
    tiny_checkpoint(place, degradation=kspace, plugins=[str(EXAMPLE)])
    keep_plugins(LocalStore(place), "", [EXAMPLE.read_bytes()])
    unload_plugin(loaded)
    words = (f"checkpoint={place}", f"test_data={digits['test']}", "num_images=4")
    assert f"add --trust-plugin {loaded.sha256}" in error_of(evaluate(*words))
    assert "no such plugin with" in error_of(evaluate(*words, "--trust-plugin", "0" * 64))
    assert "is for a plugin that came with the job's checkpoint" in error_of(
        evaluate(f"samples={digits['test']}", "--trust-plugin", loaded.sha256)
    )
    try:
        done = evaluate(*words, "--trust-plugin", loaded.sha256, "--json")
        assert result_of(done)["provenance"]["degradation"]["kind"] == "kspace"
    finally:
        unload_plugin(loaded)


@pytest.mark.parametrize(
    ("fields", "complaint"),
    [
        (
            {"checkpoint": "a", "samples": "b"},
            "cannot be combined with checkpoint: give one of them",
        ),
        ({"checkpoint": "a", "reference": "b"}, "reference: is for samples"),
        ({"checkpoint": "a", "partial": True}, "partial: is for samples"),
        ({"samples": "a", "features": "inceptoin"}, "did you mean 'inception'"),
    ],
)
def test_fields_that_do_not_go_together(fields: dict[str, Any], complaint: str) -> None:
    with pytest.raises(SpecError, match=complaint):
        parse(EvaluateJob, fields)


def test_what_is_missing_is_asked_for(
    evaluate: Evaluate, tmp_path: Path, digits: dict[str, str]
) -> None:
    checkpoint = tiny_checkpoint(tmp_path / "checkpoint")
    assert "checkpoint: is required, or samples" in error_of(evaluate())
    assert "test_data: is required: the checkpoint's job names none" in error_of(
        evaluate(f"checkpoint={checkpoint}")
    )
    assert "reference: is required" in error_of(evaluate(f"samples={digits['test']}"))
    assert "colddiff data pack digits --out URI" in error_of(
        evaluate(f"samples={digits['test']}", "reference=digits")
    )
    assert "no committed checkpoint" in error_of(evaluate(f"checkpoint={tmp_path}"))
    assert "manifest.json" in error_of(
        evaluate(f"samples={tmp_path}", f"reference={digits['test']}")
    )
