"""Evaluations and restorations in bf16: in the numbers' protocol, and in a job's identity."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from colddiff.data.pil_images import encode_png, png_text, with_png_text
from colddiff.errors import SpecError
from colddiff.evaluation.spec import EvaluationSpec
from colddiff.restoration.marks import RECORD
from colddiff.restorers.precision import at_precision
from colddiff.spec import digest, parse
from colddiff.verbs.evaluate.job import EvaluateJob
from colddiff.verbs.train.job import TrainJob
from tests.restoring import Restore, error_of, picture, pixels_of
from tests.unit.test_evaluate import of, some_images


class Linear:
    """A restorer whose arithmetic shows its precision."""

    def __init__(self) -> None:
        self.seen = set[torch.dtype]()

    def __call__(self, x_t: Tensor, t: Tensor) -> Tensor:
        mixed = x_t.flatten(2) @ torch.full((x_t[0, 0].numel(),) * 2, 1 / 200)
        self.seen.add(mixed.dtype)
        return (x_t + 0.1 * mixed.view_as(x_t)).to(mixed.dtype)


def test_within_it_a_network_computes_in_what_it_names() -> None:
    x = torch.ones(1, 2)
    for name, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
        with at_precision(name, "cpu"):
            assert (x @ x.T).dtype == dtype
    assert (x @ x.T).dtype == torch.float32


def test_an_evaluation_in_bf16_says_so_and_is_close() -> None:
    found = {}
    for precision, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
        restore = Linear()
        spec = EvaluationSpec(precision=precision)  # type: ignore[arg-type]
        found[precision] = of(some_images(), restore=restore, spec=spec)
        assert restore.seen == {dtype}
    whole, narrow = found["fp32"], found["bf16"]
    # Their numbers may not share a column of a report.
    for name in ("protocol", "image_protocol"):
        assert narrow.provenance[name] == f"{whole.provenance[name]}; R in bf16"
    assert narrow.metrics["eval/degraded/rmse"] == whole.metrics["eval/degraded/rmse"]
    assert 0 < abs(narrow.metrics["eval/direct/rmse"] - whole.metrics["eval/direct/rmse"]) < 0.01


def test_it_is_part_of_what_a_job_is_unless_it_is_the_default() -> None:
    evaluate = {"checkpoint": "train-a", "test_data": "digits"}
    train = {"data": "digits", "image_size": 16, "degradation": {"kind": "blur"}}
    digests = set()
    for precision in ({}, {"precision": "fp32"}, {"precision": "bf16"}):
        one = parse(EvaluateJob, {**evaluate, **precision})
        assert one.spec.precision == one.precision
        other = parse(TrainJob, {**train, "evaluation": precision})
        digests.add((digest(one.identity()), digest(other.identity())))
    assert len(digests) == 2
    with pytest.raises(SpecError, match="precision"):
        parse(EvaluateJob, {**evaluate, "precision": "fp16"})


def test_images_are_restored_in_bf16(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = Restore(tmp_path, monkeypatch, capsys)
    picture(tmp_path / "a.png", 1, dtype=np.uint16)
    whole = run(tmp_path / "a.png")
    assert whole.returncode == 0, whole.stderr
    before = pixels_of(run.out / "a.png").astype(int)
    again = run(tmp_path / "a.png", "--precision", "bf16", "--overwrite")
    assert again.returncode == 0, again.stderr
    difference = abs(pixels_of(run.out / "a.png").astype(int) - before)
    assert 0 < difference.max() < 0.05 * 65535
    # It is a setting of the result, as the sampler is.
    assert "made with precision 'bf16', not 'fp32'" in run(tmp_path / "a.png").stderr
    assert error_of(run(tmp_path / "a.png", "--precision", "fp16")) == (
        "colddiff: error: --precision: must be fp32 or bf16, got 'fp16'"
    )


def test_results_from_before_there_was_a_choice_are_of_fp32(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = Restore(tmp_path, monkeypatch, capsys)
    picture(tmp_path / "a.png", 1)
    assert run(tmp_path / "a.png").returncode == 0
    result = run.out / "a.png"
    record = json.loads(str(png_text(result.read_bytes(), RECORD)))
    del record["precision"]
    plain = encode_png(pixels_of(result)[..., None])
    result.write_bytes(with_png_text(plain, RECORD, json.dumps(record)))
    assert "1 skipped" in run(tmp_path / "a.png").stderr
