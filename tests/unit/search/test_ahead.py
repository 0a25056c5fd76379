"""`--dry-run` of a search: refused with the words of a submission, where images are at hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from colddiff.data.open import pack_source
from colddiff.errors import SpecError
from colddiff.verbs.search import ahead
from colddiff.verbs.search.ahead import check_ahead
from colddiff.verbs.search.job import SearchJob
from colddiff.verbs.search.resolve import resolve_search
from tests.in_process import colddiff_here
from tests.unit.search.tiny_search import BASE, tiny_search

NARROW = {**BASE["degradation"], "kernel_size": 3, "num_timesteps": 40}


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("COLDDIFF_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("COLDDIFF_STORAGE", str(tmp_path / "runs"))
    return tmp_path


def said(base: dict[str, Any], **fields: Any) -> list[str]:
    return check_ahead(SearchJob.model_validate(tiny_search(base=base, **fields)))


@pytest.mark.parametrize("packed", [False, True])
def test_a_dry_run_refuses_in_the_words_of_the_submission(
    place: Path,
    packed: bool,
    monkeypatch: pytest.MonkeyPatch,
    capsys: Any,
    caplog: pytest.LogCaptureFixture,
) -> None:
    data = "digits"
    if packed:
        data = str(place / "set")
        pack_source("digits", data, split="train", image_size=16)
    base = {"degradation": NARROW, "data": data}
    job = SearchJob.model_validate(tiny_search(base=base))
    with pytest.raises(SpecError) as submitted, caplog.at_level("INFO"):
        resolve_search(job, str(place / "runs"), pack=True)
    assert "then checking that points of the space can be compared" in caplog.text
    with pytest.raises(SpecError) as told:
        said(base)
    assert told.value.problems == submitted.value.problems
    ((field, what),) = told.value.problems
    assert field == "degradation.kernel_size"
    assert what.endswith(
        "at any scale; this field limits them; what usually helps: a larger "
        "base.degradation.kernel_size, or a higher low in ranges.degradation.num_timesteps, near "
        "the base's, or a base that removes less"
    )
    path = place / "job.yaml"
    path.write_text(json.dumps({"search": tiny_search(base=base)}))
    done = colddiff_here(monkeypatch, capsys, "submit", "search", path, "--dry-run")
    assert (done.returncode, done.stdout) == (2, "")
    assert what in done.stderr


def test_what_can_be_compared_is_said_and_nothing_is_left(place: Path) -> None:
    assert said({}) == [
        "points of the space can be compared with the base, as checked on its images"
    ]
    assert not (place / "runs").exists()


@pytest.mark.parametrize(
    ("data", "why"),
    [
        ("s3://bucket/set", "s3://bucket/set is not on this machine"),
        ("mnist:somewhere", "mnist:somewhere is not packed"),
    ],
)
def test_what_is_not_at_hand_is_checked_at_submission(data: str, why: str) -> None:
    (line,) = said({"data": data, "degradation": NARROW})
    assert line.startswith("whether points of the space can be compared with the base is checked")
    assert why in line


def test_a_large_set_is_not_listed_and_a_missing_one_is_told_of_elsewhere(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pack_source("digits", str(place / "set"), split="train", image_size=16)
    monkeypatch.setattr(ahead, "MOST_IMAGES", 1000)
    (line,) = said({"data": str(place / "set"), "degradation": NARROW})
    assert line.endswith("set has 1,447 images")
    assert said({"data": str(place / "nowhere")}) == []


def test_a_part_that_is_too_small_is_refused_too() -> None:
    with pytest.raises(SpecError, match=r"validation: 0\.001 of the training images leaves"):
        said({}, validation=0.001)
