"""What a dry run and a submission say of a recipe: how it packs its data, and what it aims at."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from colddiff.jobs.recipes import load_recipe, submitted_from
from colddiff.jobs.verb import VERBS
from colddiff.spec import parse
from tests.in_process import colddiff_here

DEBLUR = "paper/deblur-mnist"
TINY = "restorer={kind: convnext_unet, dim: 4, dim_mults: [1]}"
OWN_PACK = "colddiff data pack mnist:MNIST --out URI/mnist --split both --channels 1"
SCALED_UP = (
    "data: its images will be scaled up from 32x32 px to 35x35; images as paper/deblur-mnist "
    f"takes them are packed by `{OWN_PACK}`"
)
TARGETS = (
    "the targets of paper/deblur-mnist are fid (4.69 sampled, 5.10 direct); this job measures "
    "none: evaluation.features=inception"
)


def packed_set(folder: Path, size: int, **settings: Any) -> str:
    """A packed set of grey images, of its manifest alone."""
    folder.mkdir()
    image = {"channels": 1, "height": size, "width": size, "bits": 8, "range": None}
    shard = {"key": "shard-000000.tar", "count": 100, "bytes": 204800, "sha256": "0" * 64}
    manifest = {"format": "colddiff-shards/1", "count": 100, "image": image, "shards": [shard]}
    more = {"classes": [], "source": "mnist:MNIST", "settings": {"channels": 1, **settings}}
    (folder / "manifest.json").write_text(json.dumps(manifest | more))
    return str(folder)


@pytest.mark.parametrize(
    ("words", "command"),
    [
        ([DEBLUR, TINY], OWN_PACK),
        (["search/inpaint-mnist", f"base.{TINY}"], OWN_PACK),
        # It is of other images than its recipe's.
        (
            ["cpu/deblur-mnist", "image_size=16", TINY],
            "SOURCE --out URI --image-size 16 --channels 1",
        ),
        (
            ["augment=paper/crop112", "image_size=32"],
            "SOURCE --out URI --image-size 35 --channels 3",
        ),
    ],
    ids=lambda words: words[0] if isinstance(words, list) else "",
)
def test_a_job_without_data_is_told_how_its_recipe_packs_them(
    words: list[str],
    command: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    verb = "search" if words[0].startswith("search/") else "train"
    done = colddiff_here(monkeypatch, capsys, "submit", verb, *words, "--dry-run")
    assert f"{command}`" in done.stderr.splitlines()[-1]


@pytest.mark.parametrize(
    ("size", "settings", "said"),
    [
        (32, {"image_size": 32}, [SCALED_UP]),
        (28, {}, []),
        (35, {"image_size": 35}, []),
    ],
)
def test_images_that_were_resized_for_another_recipe_are_named(
    size: int,
    settings: dict[str, int],
    said: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setenv("COLDDIFF_STORAGE", str(tmp_path))
    recipe = load_recipe(DEBLUR)
    data = packed_set(tmp_path / "mnist", size, **settings)
    job = recipe.job("train", [f"data={data}", TINY])
    with submitted_from(recipe):
        lines = VERBS["train"].dry_run(job, None).lines
        VERBS["train"].resolve(job, str(tmp_path), pack=True)
    assert [line for line in lines if line.startswith("data: ")] == said
    assert [line for line in caplog.messages if line.startswith("data: ")] == said
    assert not [line for line in VERBS["train"].dry_run(job, None).lines if "scaled" in line]


@pytest.mark.parametrize(
    ("name", "words", "said"),
    [
        (DEBLUR, [], [TARGETS]),
        (DEBLUR, ["evaluation.features=inception"], []),
        ("cpu/deblur-mnist", [], []),
    ],
)
def test_a_job_that_measures_none_of_its_targets_is_told(
    name: str, words: list[str], said: list[str]
) -> None:
    recipe = load_recipe(name)
    job = recipe.job("train", [TINY, *words])
    with submitted_from(recipe):
        lines = [
            *VERBS["train"].dry_run(job, None).lines,
            *VERBS["train"].advice(job, lambda: None),
        ]
    assert [line for line in lines if line.startswith("the targets ")] == 2 * said


def test_a_study_is_told_of_the_recipes_of_its_trainings_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("COLDDIFF_STORAGE", str(tmp_path))
    data = packed_set(tmp_path / "mnist", 32, image_size=32)
    small = {"kind": "convnext_unet", "dim": 4, "dim_mults": [1]}
    jobs = [
        {"recipe": DEBLUR, "name": name, "overrides": {"seed": seed}}
        for seed, name in enumerate(("one", "other"))
    ]
    common = {"data": data, "restorer": small, "num_steps": 4}
    study = parse(VERBS["study"].spec(), {"jobs": jobs, "overrides": common})
    lines = VERBS["study"].dry_run(study, None).lines
    assert [line for line in lines if TARGETS in line] == [TARGETS]
    assert [line for line in lines if SCALED_UP in line] == [f"one, other: {SCALED_UP}"]
    resolved, _ = VERBS["study"].resolve(study, str(tmp_path), pack=True)
    assert [line for line in caplog.messages if line.startswith("data: ")] == [SCALED_UP]
    advice = VERBS["study"].advice(resolved, lambda: None)
    assert [line for line in advice if TARGETS in line] == [TARGETS]
