"""Job ids and dry runs of every recipe, variant and section, and of jobs with other fields."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml

import colddiff
from colddiff.spec.plugins import load_plugin, unload_plugin
from tests.compat.old_layout import checkpoint_of
from tests.compat.running import RECORDED, command

PLUGIN = RECORDED / "fade.py"
PRINTED = (("quickstart", None), ("cpu/inpaint-cifar10", None), ("paper/inpaint-mnist", "paper"))
VERBS = ("train", "evaluate", "generate")
"""Those of the recordings. Later ones may need real images to be resolved, as a search does."""
TINY_NET = {
    "image_size": 8,
    "channels": 1,
    "restorer": {"kind": "convnext_unet", "dim": 4, "dim_mults": [1]},
}


def job_id_of(job: Any, slug: str, storage: Path) -> str:
    """The id that submitting ``job`` gives, through the resolution that a submission goes through.

    The only place in tests/compat that names a module which may move: where the resolution moves,
    this import follows.
    """
    from colddiff.jobs.resolve import identified

    return identified(job, slug, str(storage), pack=True)[2]


def packed_set(root: Path, channels: int, size: int) -> str:
    """Address of a packed set of that image shape, made of its ``manifest.json`` alone.

    A training job's id depends on its data by the manifest's digest, that is by image format,
    counts and hashes. Written here by hand, they are the same on every machine: no image has to be
    resized or compressed for it.
    """
    folder = root / f"packed-{channels}x{size}"
    folder.mkdir(exist_ok=True)
    shard = {"key": "shard-000000.tar", "count": 100, "bytes": 204800}
    manifest = {
        "format": "colddiff-shards/1",
        "count": 100,
        "image": {"channels": channels, "height": size, "width": size, "bits": 8, "range": None},
        "shards": [{**shard, "sha256": f"{channels}{size:03d}" * 16}],
        "classes": [],
        "source": "synthetic",
        "settings": {},
    }
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return str(folder)


def recipes() -> list[tuple[str, str | None]]:
    """Name and variant of all there is in the catalogue."""
    listed = command("recipes", "--json").json
    return [(item["name"], v) for item in listed for v in (None, *item["variants"])]


def title(name: str, variant: str | None) -> str:
    """Key of a recipe and variant in the recordings."""
    return name if variant is None else f"{name} --variant {variant}"


def recipe_ids(root: Path) -> dict[str, str]:
    """Job id of each section of each recipe, with data given where the recipe has none."""
    found = {}
    for name, variant in recipes():
        recipe = colddiff.load_recipe(name, variant)
        for verb in recipe.sections:
            if verb not in VERBS:
                continue
            job = recipe.job(verb, _given_data(recipe.job(verb), root))
            found[f"{verb} {title(name, variant)}"] = job_id_of(job, recipe.name, root)
    return found


def _given_data(job: Any, root: Path) -> list[str]:
    """Overrides that give a recipe's training job the data it leaves to the user."""
    if getattr(job, "data", "") is not None:
        return []
    data = packed_set(root, job.channels, job.image_size)
    other = [f"degradation.other={data}"] if job.degradation.kind == "animorph" else []
    return [f"data={data}", *other]


def other_jobs(root: Path) -> dict[str, dict[str, Any]]:
    """Sections that set what the recipes leave alone; addresses do not enter an id."""
    noise, mixture = (str(checkpoint_of(name, root)) for name in ("noise", "mixture"))
    grey, colour = packed_set(root, 1, 8), packed_set(root, 3, 16)
    train = {"data": packed_set(root, 1, 32), "channels": 1}
    draw = {"checkpoint": noise, "num_samples": 10}
    return {
        "train defaults": {**train},
        "train from a checkpoint": {"data": grey, **TINY_NET, "start_from": noise},
        "train animorph": {
            "data": colour,
            "image_size": 16,
            "degradation": {"kind": "animorph", "other": colour},
        },
        "train operation": {**train, "num_steps": 7, "workers": 2, "log_every": 3, "keep": 1},
        "train all kinds of fields": {
            **train,
            "augment": "flip",
            "degradation": {"kind": "fade_to_colour", "num_timesteps": 8},
            "restorer": {"kind": "ddpm_unet", "ch": 32, "ch_mult": [1, 2], "num_res_blocks": 1},
            "optimizer": {"lr": 0.001, "clip_norm": 1.0, "warmup_steps": 5},
            "ema": {"decay": 0.99, "every": 1, "start": 10},
            "loss": "l2",
            "seed": 5,
        },
        "generate defaults": {**draw},
        "generate more": {**draw, "num_samples": 20, "statistics": [{"kind": "lenet"}]},
        "generate mixture": {**draw, "checkpoint": mixture, "symmetry_noise": 0.002},
        "generate other": {
            **{"sampler": "naive", "severities": [3, 1, 0], "first_seed": 7, "precision": "bf16"},
            **{"shard_size": 3, "batch_size": 2, "writer": "folder", **draw},
        },
        "generate own terminal": {**draw, "terminal": {"kind": "standard_normal"}},
        "generate from a set": {"checkpoint": noise, "data": grey, "severities": 2},
        "evaluate defaults": {"checkpoint": noise, "test_data": grey},
        "evaluate other": {
            **{"checkpoint": noise, "test_data": grey, "samplers": ["direct"], "seed": 3},
            **{"features": {"kind": "resnet20"}, "num_images": 4, "severities": 2, "batch_size": 2},
        },
        "evaluate a set": {"samples": grey, "reference": grey},
    }


def other_ids(root: Path) -> dict[str, str]:
    """Job id of each of ``other_jobs``."""
    found = {}
    for name, section in other_jobs(root).items():
        verb = name.split()[0]
        path = root / "other.yaml"
        path.write_text(yaml.safe_dump({verb: section}))
        found[name] = job_id_of(colddiff.load_recipe(path).job(verb), "other", root)
    return found


def plugin_id(root: Path) -> str:
    """Id of a training with a degradation of the user's own, which is forgotten again."""
    data = packed_set(root, 1, 32)
    path = root / "plugin.yaml"
    degradation = {"kind": "fade_of_my_own", "num_timesteps": 4}
    train = {"plugins": [str(PLUGIN)], "data": data, "channels": 1, "degradation": degradation}
    path.write_text(yaml.safe_dump({"train": train}))
    job = colddiff.load_recipe(path).job("train")
    try:
        return job_id_of(job, "plugin", root)
    finally:
        unload_plugin(load_plugin(str(PLUGIN)))


def dry_runs() -> dict[str, list[str]]:
    """Lines that ``submit VERB RECIPE --dry-run`` prints, for each section of each recipe.

    By that command for ``PRINTED``, and there for all verbs; for the others, whose estimates of
    cost would take long, as it writes them.
    """
    found = {}
    for name, variant in recipes():
        recipe = colddiff.load_recipe(name, variant)
        for verb in recipe.sections:
            data = {"name": slug_of(recipe.name), verb: recipe.job(verb).to_dict()}
            text = yaml.safe_dump(data, sort_keys=False)
            found[f"{verb} {title(name, variant)}"] = text.splitlines()
    for name, variant in PRINTED:
        words = [] if variant is None else ["--variant", variant]
        for verb in ("train", "evaluate", "generate"):
            done = command("submit", verb, name, *words, "--dry-run")
            assert done.code == 0, done.stderr
            found[f"{verb} {title(name, variant)}"] = done.stdout.splitlines()
    return found


def slug_of(name: str) -> str:
    """A recipe's name as it stands in ids."""
    return name.replace("/", "-")
