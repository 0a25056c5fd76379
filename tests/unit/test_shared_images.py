"""Test images that are trained on are said: their scores say little of others."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from colddiff.data.open import pack_source
from colddiff.jobs.verb import VERBS
from colddiff.verbs.train.resolve import resolve_training
from tests.tiny_checkpoint import tiny_job


def said(caplog: pytest.LogCaptureFixture, data: Path, test: Path) -> bool:
    caplog.clear()
    job = tiny_job(data=str(data), test_data=str(test))
    resolve_training(job, str(data.parent / "runs"), pack=True)
    line = "data and test_data share images"
    dry = any(line in said for said in VERBS["train"].dry_run(job, None).lines)
    assert dry == (line in caplog.text)
    return dry


def test_only_what_was_not_cut_alike_shares_images(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "colddiff")
    photos = tmp_path / "photos"
    photos.mkdir()
    rng = np.random.default_rng(0)
    for number in range(30):
        Image.fromarray(rng.integers(0, 256, (16, 16), np.uint8)).save(photos / f"{number}.png")
    source = f"folder:{photos}"
    for split in ("train", "test"):
        pack_source(
            source, str(tmp_path / split), image_size=16, channels=1, split=split, holdout=0.3
        )
    pack_source(source, str(tmp_path / "all"), image_size=16, channels=1)
    assert not said(caplog, tmp_path / "train", tmp_path / "test")
    assert said(caplog, tmp_path / "all", tmp_path / "test")
    assert said(caplog, tmp_path / "train", tmp_path / "train")
    for split in ("train", "test"):
        pack_source("digits", str(tmp_path / "d" / split), image_size=16, channels=1, split=split)
    assert not said(caplog, tmp_path / "d" / "train", tmp_path / "d" / "test")
    assert not said(caplog, tmp_path / "d" / "train", tmp_path / "test")
