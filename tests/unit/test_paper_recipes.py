"""The paper's recipes pinned to its numbers, written from the paper and its code, not the YAML."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from colddiff.jobs.recipes import list_recipes, load_recipe
from colddiff.restorers import build_restorer
from colddiff.verbs.train.job import TrainJob

ROOT = Path(__file__).resolve().parents[2]
CONVNEXT, DDPM = "convnext_unet", "ddpm_unet"
# PAPER 2.2, its table: resized to int(1.12 n) and cropped, and so on.
CROP, CENTRE112, PAD4 = "paper/crop112", "paper/centre112", "paper/pad4"
RESIZE, CENTRE = "paper/resize", "paper/centre"


@dataclass(frozen=True)
class Pinned:
    """T, the schedule's first and last value, and the set-up of one experiment."""

    kind: str
    T: int
    size: int
    channels: int
    net: str
    batch: int
    augment: str
    first: float | None = None
    last: float | None = None
    steps: int = 700_000
    fields: tuple[tuple[str, Any], ...] = ()
    fid: tuple[float, float] | float | None = None
    """Verified numbers alone: (sampled, direct) of Tables 1 and 2, or that of Table 5."""


REFLECT = (("padding", "reflect"),)
HOLE = (("centre", "random"), ("quantise", True))
FROM_COLOUR = (
    ("kernel_size", 27),
    ("padding", "circular"),
    ("collapse_to_mean", True),
    ("quantise", True),
)
HALVING = (("factor", 2), ("interpolation", "bicubic"))
GREY = (("schedule", "linear"), ("total_remove", True))
COSINE = (("schedule", "cosine"),)

# sigma at severities 1 and T: exp(0.01 * 199) = 7.316, exp(0.01 * 299) = 19.886.
PAPER = {
    "deblur-mnist": Pinned(
        "blur", 20, 32, 1, CONVNEXT, 64, CROP, 7.0, 7.0,
        fields=(("kernel_size", 11), ("padding", "circular")), fid=(4.69, 5.10),
    ),
    "deblur-cifar10": Pinned(
        "blur", 50, 32, 3, DDPM, 64, CROP, 0.35, 0.84,
        fields=(("kernel_size", 11), *REFLECT), fid=(80.08, 83.69),
    ),
    "deblur-celeba": Pinned(
        "blur", 200, 128, 3, CONVNEXT, 64, CROP, 1.0, 7.3155,
        fields=(("kernel_size", 15), *REFLECT), fid=(26.14, 36.37),
    ),
    "inpaint-mnist": Pinned(
        "inpaint", 50, 32, 1, CONVNEXT, 64, RESIZE, 1.1, 6.0, fields=HOLE, fid=(1.61, 2.24)
    ),
    "inpaint-cifar10": Pinned(
        "inpaint", 50, 32, 3, DDPM, 64, PAD4, 1.1, 6.0, fields=HOLE, fid=(8.92, 9.97)
    ),
    "inpaint-celeba": Pinned(
        "inpaint", 100, 128, 3, CONVNEXT, 200, CROP, 0.2, 20.0, steps=350_000,
        fields=(("centre", "centred"), ("quantise", False)), fid=(5.73, 7.74),
    ),
    "superres-mnist": Pinned("downsample", 3, 32, 1, CONVNEXT, 64, CENTRE112, fields=HALVING),
    "superres-cifar10": Pinned("downsample", 3, 32, 3, DDPM, 64, CROP, fields=HALVING),
    "superres-celeba": Pinned("downsample", 4, 128, 3, CONVNEXT, 64, CROP, fields=HALVING),
    "desnow-cifar10": Pinned(
        "snow", 200, 32, 3, CONVNEXT, 64, CENTRE, fields=(("level", 3), ("fix_brightness", True))
    ),
    "desnow-celeba": Pinned(
        "snow", 200, 128, 3, CONVNEXT, 32, CENTRE, fields=(("level", 4), ("fix_brightness", True))
    ),
    "colorize-cifar10": Pinned("decolor", 20, 32, 3, CONVNEXT, 64, CENTRE, fields=GREY),
    "colorize-celeba": Pinned("decolor", 20, 128, 3, CONVNEXT, 32, CENTRE, fields=GREY),
    "blur-generation-celeba": Pinned(
        "blur", 300, 128, 3, CONVNEXT, 64, CROP, 1.0, 19.8857, fields=FROM_COLOUR, fid=49.45
    ),
    "blur-generation-afhq": Pinned(
        "blur", 300, 128, 3, CONVNEXT, 64, CROP, 1.0, 19.8857, fields=FROM_COLOUR, fid=54.68
    ),
    "noise-generation-celeba": Pinned(
        "noise", 200, 128, 3, CONVNEXT, 64, CROP, fields=COSINE, fid=23.11
    ),
    "noise-generation-afhq": Pinned(
        "noise", 200, 128, 3, CONVNEXT, 64, CROP, fields=COSINE, fid=20.59
    ),
    "inpaint-generation-celeba": Pinned(
        "fade_to_colour", 750, 128, 3, CONVNEXT, 64, CROP, 0.05, 37.5,
        fields=(("reverse", True), ("colour_range", [-0.5, 0.5])),
    ),
    "superres-generation-celeba": Pinned(
        "downsample", 6, 128, 3, CONVNEXT, 64, CROP, fields=HALVING
    ),
    "animorph": Pinned("animorph", 200, 128, 3, CONVNEXT, 64, CROP, fields=COSINE),
}  # fmt: skip

PARAMETERS = {(CONVNEXT, 3): 56_615_708, (CONVNEXT, 1): 56_612_916, (DDPM, 3): 35_746_307}


def test_every_experiment_has_its_recipe() -> None:
    names = {name.removeprefix("paper/") for name in list_recipes() if name.startswith("paper/")}
    assert names == set(PAPER)


@pytest.mark.parametrize("name", PAPER)
def test_a_recipe_has_the_numbers_of_the_code(name: str) -> None:
    pinned, job = PAPER[name], load_recipe(f"paper/{name}").train
    assert (job.degradation.kind, job.degradation.num_timesteps) == (pinned.kind, pinned.T)
    assert job.shape.chw == (pinned.channels, pinned.size, pinned.size)
    assert job.global_batch_size == pinned.batch
    assert job.num_steps == pinned.steps
    assert job.augment == pinned.augment
    assert job.restorer.kind == pinned.net
    fields = job.degradation.to_dict()
    assert {key: fields[key] for key, _ in pinned.fields} == dict(pinned.fields)
    _has_ends(job, pinned.first, pinned.last)


def _has_ends(job: TrainJob, first: float | None, last: float | None) -> None:
    schedule = job.degradation.build(job.shape).parameters().get("sigma")
    if first is None:
        assert schedule is None
        return
    assert schedule is not None
    assert len(schedule) == job.degradation.num_timesteps
    assert float(schedule[0]) == pytest.approx(first, rel=1e-4)
    assert float(schedule[-1]) == pytest.approx(last, rel=1e-4)


@pytest.mark.parametrize("name", PAPER)
def test_a_recipe_is_trained_as_the_code_trains(name: str) -> None:
    job = load_recipe(f"paper/{name}").train
    optimizer, ema = job.optimizer, job.ema
    assert (optimizer.lr, optimizer.betas, optimizer.eps) == (2e-5, (0.9, 0.999), 1e-8)
    assert (optimizer.weight_decay, optimizer.clip_norm, optimizer.warmup_steps) == (0, None, 0)
    assert (ema.decay, ema.every, ema.start) == (0.995, 10, 2000)
    assert (job.loss, job.precision) == ("l1", "fp32")


@pytest.mark.parametrize("name", ["deblur-mnist", "deblur-cifar10", "deblur-celeba"])
def test_the_networks_have_the_papers_parameters_to_the_last_one(name: str) -> None:
    pinned, job = PAPER[name], load_recipe(f"paper/{name}").train
    restorer = build_restorer(job.restorer, job.shape)
    assert restorer.num_parameters == PARAMETERS[pinned.net, pinned.channels]


def test_recipes_of_one_kind_of_net_are_of_the_same_net() -> None:
    jobs = [load_recipe(f"paper/{name}").train for name in PAPER]
    for kind in (CONVNEXT, DDPM):
        nets = {repr(job.restorer) for job in jobs if job.restorer.kind == kind}
        assert len(nets) == 1


@pytest.mark.parametrize("name", PAPER)
def test_targets_are_the_verified_numbers_and_no_others(name: str) -> None:
    pinned, targets = PAPER[name], load_recipe(f"paper/{name}").targets
    if pinned.fid is None:
        assert targets is None
        return
    assert targets is not None
    assert "2208.09392" in targets["source"]
    found = {key: value for key, value in targets.items() if key.endswith("fid")}
    if isinstance(pinned.fid, tuple):
        sampled, direct = pinned.fid
        assert found == {"eval/sampled/fid": sampled, "eval/direct/fid": direct}
    else:
        assert found == {"fid": pinned.fid}
        kept = {"blur": ("improved", 0.002), "noise": ("improved_estimated", None)}[pinned.kind]
        assert (targets["sampler"], targets.get("symmetry_noise")) == kept


INPAINT_TEXT = {"global_batch_size": 128, "num_steps": 60_000}
VARIANTS: dict[str, tuple[int, tuple[float, float] | None, dict[str, Any]]] = {
    "deblur-mnist": (40, (7.0, 7.0), {}),
    "inpaint-mnist": (50, (1.0, 5.9), INPAINT_TEXT),
    "inpaint-cifar10": (50, (1.0, 5.9), INPAINT_TEXT),
    "inpaint-celeba": (50, (1.0, 5.9), INPAINT_TEXT),
    "colorize-cifar10": (50, None, {}),
}


def test_a_variant_stands_where_the_papers_text_says_otherwise() -> None:
    with_variants = {name for name in PAPER if load_recipe(f"paper/{name}").variants}
    assert with_variants == set(VARIANTS)


@pytest.mark.parametrize("name", VARIANTS)
def test_a_variant_has_the_numbers_of_the_text(name: str) -> None:
    T, ends, others = VARIANTS[name]
    plain, job = (load_recipe(f"paper/{name}", variant).train for variant in (None, "paper"))
    assert job.degradation.num_timesteps == T
    _has_ends(job, *(ends or (None, None)))
    for key, value in others.items():
        assert getattr(job, key) == value
    if name == "inpaint-celeba":
        assert job.degradation.to_dict()["centre"] == "random"
    assert (job.restorer, job.shape) == (plain.restorer, plain.shape)


@pytest.mark.parametrize("name", PAPER)
def test_a_recipe_says_how_its_data_is_packed(name: str) -> None:
    recipe = load_recipe(f"paper/{name}")
    assert recipe.train.data is None
    assert recipe.pack
    for line in recipe.pack.strip().splitlines():
        assert line.startswith("colddiff data pack ")
        # Digits are resized by the transform, from the 28 px they were published at.
        sized = "mnist:" not in line
        assert (f"--image-size {recipe.train.image_size} " in line) is sized
        assert ("--image-size" in line) is sized
        assert f"--channels {recipe.train.channels}" in line
    assert len(recipe.description.splitlines()[0]) <= 100, "its first line stands in a table"


def test_the_page_of_results_has_verified_numbers_of_the_paper_and_no_others() -> None:
    page = (ROOT / "infra" / "docs" / "results.md").read_text()
    claims = re.search(r"^\| the paper says .*?\n\n", page, re.M | re.S)
    generation = re.search(r"^\| Table 5, .*$", page, re.M)
    assert claims is not None
    assert generation is not None
    rows = claims[0].splitlines()[2:]
    first = "\n".join(row.split("|")[1] for row in rows if row)
    assert len(rows) > 8
    said = {float(number) for number in re.findall(r"\d+\.\d+", f"{first}\n{generation[0]}")}
    targets = [load_recipe(f"paper/{name}").targets or {} for name in PAPER]
    verified = {value for one in targets for key, value in one.items() if key.endswith("fid")}
    assert said <= verified
    assert len(said) > 8
