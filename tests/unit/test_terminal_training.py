"""Terminals in training jobs: fitted before step 0, in every checkpoint; second sets as omega."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import colddiff
from colddiff.checkpoints.references import load_checkpoint
from colddiff.data.open import open_shards, pack_source, read_manifest
from colddiff.data.readers.memory_shards import MemoryShards
from colddiff.data.readers.second_set import SecondSet
from colddiff.degradations import build_degradation
from colddiff.errors import ColddiffError, DataError, SpecError
from colddiff.jobs.folder import JobFolder
from colddiff.jobs.resolve import resolve
from colddiff.rng import streams
from colddiff.spec import parse
from colddiff.stores.open import open_store
from colddiff.terminals.stored import STATE, TENSORS
from colddiff.transforms import normalise
from colddiff.types import ImageShape
from colddiff.verbs.train.inputs import training_inputs
from colddiff.verbs.train.job import TrainJob

BLUR = {
    "kind": "blur",
    "num_timesteps": 3,
    "kernel_size": 5,
    "sigma": {"kind": "constant", "value": 2.0},
    "collapse_to_mean": True,
}
pytestmark = pytest.mark.usefixtures("storage")

TINY: dict[str, Any] = {
    "image_size": 8,
    "channels": 1,
    "degradation": BLUR,
    "restorer": {"kind": "convnext_unet", "dim": 8, "dim_mults": [1, 2]},
    "global_batch_size": 4,
    "num_steps": 2,
    "checkpoint_every": 1,
    "evaluation": {"num_images": 4, "batch_size": 4},
}
ANIMORPH = {"kind": "animorph", "num_timesteps": 3}


def job(**changes: Any) -> TrainJob:
    return parse(TrainJob, {**TINY, **changes})


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Two sets of small digits that differ, as ``data`` and as ``other``."""
    root = tmp_path_factory.mktemp("packed")
    sides = {"data": "train", "other": "test"}
    for name, split in sides.items():
        pack_source("digits", str(root / name), image_size=8, channels=1, limit=30, split=split)
    return {name: str(root / name) for name in sides}


def pixels(uri: str) -> torch.Tensor:
    source = open_shards(uri)
    return normalise(torch.from_numpy(source.images(0, source.manifest.count)))


def test_every_checkpoint_holds_the_terminal_fitted_to_the_data(packed: dict[str, str]) -> None:
    result = colddiff.train(job(data=packed["data"]), "tiny")
    means = pixels(packed["data"]).double().mean(dim=(1, 2, 3))
    for step in (1, 2):
        terminal = load_checkpoint(f"{result['id']}@step={step}").terminal
        assert terminal is not None
        assert float(terminal.tensors["means"][0, 0]) == pytest.approx(float(means.mean()))
        variance = float(terminal.tensors["factors"][0, 0, 0]) ** 2
        assert variance == pytest.approx(float(means.var(correction=0)) + 1e-6, rel=1e-4)
    loaded = load_checkpoint(result["id"])
    assert loaded.terminal is not None
    x_T, omega = loaded.terminal.draw(loaded.degradation, streams(0, "start", range(4)))
    assert x_T.shape == (4, 1, 8, 8)
    assert omega == {}


def test_a_later_attempt_keeps_the_terminal_and_another_one_is_fitted_again(
    packed: dict[str, str], storage: Path
) -> None:
    first = colddiff.train(job(data=packed["data"], num_steps=1), "tiny")
    folder = JobFolder(open_store(str(storage)), first["id"])
    written = Path(storage, folder.key(STATE)).stat().st_mtime_ns
    colddiff.train(job(data=packed["data"], num_steps=2), "tiny")
    assert Path(storage, folder.key(STATE)).stat().st_mtime_ns == written
    wanted = {"kind": "gmm", "components": 2}
    again = colddiff.train(job(data=packed["data"], num_steps=3, terminal=wanted), "tiny")
    assert again["id"] == first["id"]
    terminal = load_checkpoint(first["id"]).terminal
    assert terminal is not None
    assert terminal.tensors["means"].shape == (2, 1)


def test_a_damaged_terminal_is_fitted_again(packed: dict[str, str], storage: Path) -> None:
    first = colddiff.train(job(data=packed["data"], num_steps=1), "tiny")
    folder = JobFolder(open_store(str(storage)), first["id"])
    good = folder.store.get(folder.key(TENSORS))
    folder.store.put(folder.key(TENSORS), good[:-1])
    colddiff.train(job(data=packed["data"], num_steps=2), "tiny")
    assert folder.store.get(folder.key(TENSORS)) == good


def test_a_terminal_that_is_not_for_the_degradation_ends_the_job_before_step_0(
    packed: dict[str, str], storage: Path
) -> None:
    with pytest.raises(ColddiffError, match="degradation 'blur' has no omega entry 'z'"):
        colddiff.train(job(data=packed["data"], terminal={"kind": "standard_normal"}), "tiny")
    assert not list(storage.glob("jobs/*/checkpoints"))


def test_a_kind_without_a_terminal_says_so_and_trains(
    packed: dict[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "colddiff")
    result = colddiff.train(
        job(data=packed["data"], degradation={"kind": "decolor", "num_timesteps": 2}), "tiny"
    )
    assert load_checkpoint(result["id"]).terminal is None
    said = "no terminal distribution: D(x0, T) of decolor still depends on x0"
    assert said in caplog.text


def test_animorph_trains_evaluates_and_starts_from_the_other_set(packed: dict[str, str]) -> None:
    degradation = {**ANIMORPH, "other": packed["other"]}
    result = colddiff.train(
        job(data=packed["data"], test_data=packed["data"], degradation=degradation), "tiny"
    )
    assert "eval/sampled/rmse" in result["metrics"]
    loaded = load_checkpoint(result["id"])
    assert loaded.terminal is not None
    x_T, omega = loaded.terminal.draw(loaded.degradation, streams(0, "start", range(5)))
    assert torch.equal(x_T, omega["z"])
    theirs = pixels(packed["other"])
    assert all(any(torch.equal(x, image) for image in theirs) for x in x_T)


def test_the_identity_holds_what_the_other_set_is_not_where(
    packed: dict[str, str], tmp_path: Path
) -> None:
    copy = tmp_path / "moved"
    pack_source("digits", str(copy), image_size=8, channels=1, limit=30, split="test")

    def resolved(other: str) -> Any:
        spec = {**ANIMORPH, "other": other}
        return resolve(job(data=packed["data"], degradation=spec), "tiny")

    here = resolved(packed["other"])
    assert here.id == resolved(str(copy)).id
    assert here.id != resolved(packed["data"]).id
    assert json.loads(json.dumps(here.to_dict()))["spec"]["degradation"]["other"] == packed["other"]


def test_a_source_as_the_other_set_is_packed_once(
    packed: dict[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "colddiff")
    spec = {**ANIMORPH, "other": "digits"}
    wanted = job(data=packed["data"], degradation=spec)
    done = [resolve(wanted, "tiny") for _ in range(2)]
    uri = done[0].job_as(TrainJob).degradation.to_dict()["other"]
    assert uri == done[1].job_as(TrainJob).degradation.to_dict()["other"]
    assert read_manifest(uri).count > 0
    assert len([line for line in caplog.messages if line.startswith("packed ")]) == 1


@pytest.mark.parametrize(
    ("other", "error", "message"),
    [
        (None, SpecError, "degradation.other: is required for animorph: .*data pack"),
        ("nowhere", DataError, "no such folder"),
        ("empty", DataError, "count"),
        ("large", DataError, "degradation.other: .* has images 1x16x16, the job needs 1x8x8"),
    ],
)
def test_a_second_set_that_cannot_be_used_is_one_error_at_submission(
    packed: dict[str, str],
    tmp_path: Path,
    other: str | None,
    error: type[ColddiffError],
    message: str,
) -> None:
    if other == "large":
        pack_source("digits", str(tmp_path / other), image_size=16, channels=1, limit=4)
    if other == "empty":
        manifest = json.loads(Path(packed["other"], "manifest.json").read_text())
        (tmp_path / other).mkdir()
        (tmp_path / other / "manifest.json").write_text(
            json.dumps({**manifest, "count": 0, "shards": []})
        )
    spec = {**ANIMORPH, "other": None if other is None else str(tmp_path / other)}
    with pytest.raises(error, match=message) as caught:
        resolve(job(data=packed["data"], degradation=spec), "tiny")
    assert "\n" not in str(caught.value)


def test_an_other_set_that_changed_since_submission_is_refused(packed: dict[str, str]) -> None:
    from colddiff.jobs.in_process import run_here
    from colddiff.jobs.resolve import ResolvedJob

    spec = {**ANIMORPH, "other": packed["other"]}
    resolved = resolve(job(data=packed["data"], degradation=spec), "tiny")
    altered = resolved.to_dict()
    altered["content"] = {**altered["content"], "other": "0" * 64}
    folder = JobFolder(open_store(resolved.storage), resolved.id)
    folder.write_job(altered)
    assert run_here(ResolvedJob.from_dict(altered), 1) == 1
    status = folder.status()
    assert status
    assert f"other: {packed['other']} has changed since" in status.message


def ten_images(count: int = 10) -> MemoryShards:
    return MemoryShards(
        np.arange(count, dtype=np.uint8)[:, None, None, None].repeat(64, 1).reshape(count, 1, 8, 8)
    )


def test_which_other_image_depends_on_the_position_alone() -> None:
    shape = ImageShape(1, 8, 8)
    D = build_degradation({**ANIMORPH, "other": "unused"}, shape)
    the_job = job(degradation=D.spec)

    def z(world_size: int, start_step: int) -> torch.Tensor:
        images = SecondSet(ten_images, shape)
        parts = [
            next(
                training_inputs(
                    the_job,
                    ten_images(),
                    D,
                    rank=rank,
                    world_size=world_size,
                    start_step=start_step,
                    images=images,
                )
            ).omega["z"]
            for rank in range(world_size)
        ]
        return torch.cat(parts)

    assert torch.equal(z(1, 5), z(3, 5))
    chosen = torch.cat([z(1, step) for step in range(30)])[:, 0, 0, 0]
    assert len(set(chosen.tolist())) == 10


def test_an_empty_set_in_memory_and_images_of_another_size_are_refused() -> None:
    rng = streams(0, "other", range(2))
    with pytest.raises(DataError, match=r"degradation.other: the second set is empty"):
        SecondSet(lambda: ten_images(0), ImageShape(1, 8, 8))(rng)
    with pytest.raises(DataError, match=r"has images 1x8x8, the job needs 3x8x8"):
        SecondSet(ten_images, ImageShape(3, 8, 8))(rng)
